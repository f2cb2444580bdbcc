"""Holds the fragments of one session while it is behind, within a budget that all sessions share."""

from collections import deque

from handlers.stages.record.admit import Arrival
from streams.pipeline.record.shared import Shared

HELD_BYTES = 16 << 20
"""The budget of all sessions."""
HELD_SHARE = 4
"""One session holds at most a quarter of the budget."""


class HeldFragments:
    """A queue in stream order."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._queue: deque[Arrival] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._queue)

    def fits(self, size: int) -> bool:
        return (
            self._shared.held_bytes + size <= HELD_BYTES and (self._bytes + size) * HELD_SHARE <= HELD_BYTES
        )

    def add(self, arrival: Arrival) -> None:
        self._count(arrival.size)
        self._queue.append(arrival)

    def pop(self) -> Arrival:
        arrival = self._queue.popleft()
        self._count(-arrival.size)
        return arrival

    def drop(self) -> int:
        """Drop all; the stream sequence of the last one, 0 when there was none."""
        last = self._queue[-1].seq if self._queue else 0
        self._count(-self._bytes)
        self._queue.clear()
        return last

    def _count(self, size: int) -> None:
        self._bytes += size
        self._shared.held_bytes += size
