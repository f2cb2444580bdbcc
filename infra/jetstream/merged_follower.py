"""Follows several streams at once: each in its order, all within one budget, and one wake-up for all.

1. Each stream has a Follower in a task of its own. While one stream is not readable, the others go on.
2. All share one budget and one pace (read_pace): the connection owes them a bounded number of bytes.
3. Items of one stream come in its order. Between streams there is no order.
"""

import asyncio
from collections.abc import Iterable, Sequence

from infra.jetstream.connection import Connection
from infra.jetstream.follower import Follower
from infra.jetstream.read_pace import Pace, ReadBudget
from schemas.ports.messages import Discontinuity, Message

Source = tuple[str, Sequence[str], int]
"""Stream, filters, and the first sequence."""


class MergedFollower:
    """The port MergedFollower."""

    def __init__(self, conn: Connection, sources: Iterable[Source], share: float = 1.0) -> None:
        """share: of the pace at which all workers together may follow."""
        budget, self._arrived = ReadBudget(pace=Pace(share)), asyncio.Event()
        self._followers = [
            Follower(conn, stream, filters, from_seq, budget.share(), self._arrived.set)
            for stream, filters, from_seq in sources
        ]
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    async def batch(self) -> list[Message | Discontinuity]:
        if not self._tasks and not self._closed:
            self._tasks = [asyncio.create_task(follower.read_on()) for follower in self._followers]
            for task in self._tasks:
                task.add_done_callback(lambda _: self._arrived.set())
        while not self._closed:
            self._arrived.clear()
            for task in self._tasks:
                if task.done():
                    task.result()
            if items := [item for follower in self._followers for item in follower.queued()]:
                for follower in self._followers:
                    await follower.ask()
                return items
            await self._arrived.wait()
        return []

    async def close(self) -> None:
        self._closed = True
        self._arrived.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(follower.close() for follower in self._followers))
