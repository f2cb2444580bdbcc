"""Judges whether a stage stands still: something waits for it, and it has moved nothing for too long.

1. A stage that has nothing to do stands still for ever, and is not stalled.
2. Nothing is judged of a time in which nobody looked.
3. This is the only judgement: readiness tells its result.
"""

from typing import NamedTuple


class Sample(NamedTuple):
    """One look at a stage. waiting: messages, or recordings, that it has not done; moved: its positions."""

    waiting: int
    moved: tuple[int, ...]


class Progress(NamedTuple):
    """A stage as far as it was seen. since_s: when it last moved, or had nothing to do."""

    sample: Sample
    since_s: float
    seen_s: float


def observed(before: Progress | None, sample: Sample, now_s: float, unseen_s: float) -> Progress:
    """Return the progress after one more look. unseen_s: after so long without a look, all begins anew."""
    stands_still = (
        before is not None
        and before.sample.waiting > 0 < sample.waiting
        and before.sample.moved == sample.moved
        and now_s - before.seen_s <= unseen_s
    )
    return Progress(sample, before.since_s if before and stands_still else now_s, now_s)


def still_s(progress: Progress) -> float:
    """How long something has waited while the stage moved nothing, in seconds."""
    return progress.seen_s - progress.since_s if progress.sample.waiting else 0.0
