"""Shares a number of slots, or bytes, fairly between hosts.

1. Hosts that wait take turns: a host waits for at most one job of each other host.
2. One host holds at most its share at once, so slots stay free for the others.
3. A job larger than the limit runs alone. A job larger than the share runs as its host's only job.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

Turn = tuple[int, asyncio.Future[None]]
"""Size of a job that waits, and the future that wakes it."""


class FairSlots:
    """At most `limit` slots in use at once, at most `share` by one host. Used from one event loop only."""

    def __init__(self, limit: int, share: int = 0) -> None:
        """share: 0 means the whole limit."""
        self.limit = limit
        self.used = 0
        self._share = share or limit
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[Turn]] = {}
        """By host; the first host has the next turn."""

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return sum(map(len, self._waiting.values()))

    def waiting_of(self, host: str) -> int:
        """How many jobs of this host wait."""
        return len(self._waiting.get(host, ()))

    @asynccontextmanager
    async def turn(self, host: str) -> AsyncIterator[None]:
        """Hold one slot for a job of this host."""
        await self.take(host)
        try:
            yield
        finally:
            self.give(host)

    async def take(self, host: str, size: int = 1) -> None:
        """Wait until `size` is free for this host."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(host, deque()).append((size, turn))
        while self._serve():
            pass
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(host, size)
            else:
                self._forget(host, turn)
                self.give(host, 0)  # a job that waited behind this one may fit
            raise

    def take_now(self, host: str) -> bool:
        """Take one slot if it is free for this host; False: none is, or others wait."""
        if self._waiting or self.used >= self.limit or self._held[host] >= self._share:
            return False
        self.used += 1
        self._held[host] += 1
        return True

    def give(self, host: str, size: int = 1) -> None:
        """Return `size` of this host, and start the jobs that now fit."""
        self.used -= size
        self._held[host] -= size
        if not self._held[host]:
            del self._held[host]
        while self._serve():
            pass

    def _serve(self) -> bool:
        """Start the first job that fits; False: none fits."""
        for host, turns in self._waiting.items():
            size, turn = turns[0]
            if self._held[host] and self._held[host] + size > self._share:
                continue
            if self.used and self.used + size > self.limit:
                return False  # smaller jobs must not overtake it, or it waits for ever
            turns.popleft()
            del self._waiting[host]
            if turns:
                self._waiting[host] = turns  # behind all other hosts
            if not turn.done():
                self.used += size
                self._held[host] += size
                turn.set_result(None)
            return True
        return False

    def _forget(self, host: str, turn: asyncio.Future[None]) -> None:
        left = deque(item for item in self._waiting.get(host, ()) if item[1] is not turn)
        if left:
            self._waiting[host] = left
        else:
            self._waiting.pop(host, None)
