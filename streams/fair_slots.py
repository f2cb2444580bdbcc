"""Shares a number of slots fairly between hosts.

1. Hosts that wait take turns: a host waits for at most one job of each other host, whatever those ask for.
2. One host holds at most `share` slots at once, so a job that takes long leaves slots for the others.
3. A slot is never idle while a host that may have it waits.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class FairSlots:
    """`slots` jobs at once. Used from one event loop only."""

    def __init__(self, slots: int, share: int = 0) -> None:
        """share: slots that one host may hold; 0: all of them."""
        self._free = slots
        self._share = share or slots
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By host, in the order of their turns."""

    @asynccontextmanager
    async def turn(self, host: str) -> AsyncIterator[None]:
        """Hold a slot for a job of this host."""
        await self._take(host)
        try:
            yield
        finally:
            self._give(host)

    async def _take(self, host: str) -> None:
        # While a slot is free, no host that may have it waits: `_give` sees to that.
        if self._free and self._held[host] < self._share:
            self._hold(host)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(host, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give(host)
            raise

    def _hold(self, host: str) -> None:
        self._free -= 1
        self._held[host] += 1

    def _give(self, host: str) -> None:
        self._free += 1
        self._held[host] -= 1
        if not self._held[host]:
            del self._held[host]
        for waiting in tuple(self._waiting):
            if not self._free:
                return
            if self._held[waiting] < self._share:
                self._serve(waiting)

    def _serve(self, host: str) -> None:
        """Give the host's first waiter a slot; its next one waits behind all other hosts."""
        turns = self._waiting.pop(host)
        while turns:
            turn = turns.popleft()
            if not turn.done():
                self._hold(host)
                turn.set_result(None)
                break
        if turns:
            self._waiting[host] = turns
