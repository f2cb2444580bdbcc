"""Forecasts when a disk is full, from its free space in the last hour. Pure."""

import math
from collections.abc import Sequence

SHORTEST_S = 300.0
"""Over a shorter time the slope says nothing."""


def hours_to_full(samples: Sequence[tuple[float, int]]) -> float:
    """Return in how many hours no byte is free, by a straight line through the samples; inf: never.

    samples: times in s and free bytes, oldest first.
    """
    if len(samples) < 2 or samples[-1][0] - samples[0][0] < SHORTEST_S:
        return math.inf
    mean_s = sum(at_s for at_s, _ in samples) / len(samples)
    mean = sum(free for _, free in samples) / len(samples)
    spread = sum((at_s - mean_s) ** 2 for at_s, _ in samples)
    slope = sum((at_s - mean_s) * (free - mean) for at_s, free in samples) / spread
    return max(samples[-1][1], 0) / -slope / 3600 if slope < 0 else math.inf
