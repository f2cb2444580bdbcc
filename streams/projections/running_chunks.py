"""Follows how far the chunks of running sessions are, for a view of all of them.

1. The first look reads the newest `recorded` and `stored` event of each session; a later look reads the new
   ones alone. After a long time without a look it begins anew.
2. Chunks are stored side by side, so the newest `stored` event may be of an older chunk. If it is, the first
   look also reads the events behind the newest `recorded` one.
3. A chunk that was left behind by later ones is not seen here. Where exact numbers are wanted, ask
   session_places.py.
"""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from schemas import subjects
from schemas.errors import Rejected
from schemas.events.chunk import Recorded, Stored
from schemas.events.upcast import read_chunk_event
from schemas.ports import Reader
from schemas.ports.messages import Message

NAMES_AT_ONCE = 500
"""Newest events of so many sessions in one question."""
ANEW_MESSAGES = 20_000
"""After so many events of all steps the newest ones are cheaper."""
READS_AT_ONCE = 8


@dataclass(slots=True)
class Counts:
    """One session. Times by the server's clock; 0: not known."""

    recorded: int = 0
    recorded_us: int = 0
    recorded_seq: int = 0
    """In CHUNKS: the chunk's `stored` event comes behind it."""
    stored: int = 0
    stored_us: int = 0


class RunningChunks:
    """One for each process that answers. Used by one task at a time."""

    def __init__(self, jet: Reader) -> None:
        self._jet = jet
        self._position = 0
        self.counts: dict[str, Counts] = {}
        self.now_us = 0

    async def look(self, names: Collection[str]) -> None:
        """Learn how far these sessions are now; forget the others. Raises Unavailable."""
        info = await self._jet.info(subjects.CHUNKS)
        self.now_us = info.now_us
        if info.last_seq - self._position > ANEW_MESSAGES:
            self.counts, self._position = {}, info.last_seq
        for step in (subjects.RECORDED, subjects.STORED):
            subject = subjects.chunk_filter(step)
            async for message in self._jet.read_all(subjects.CHUNKS, subject, self._position + 1):
                if message.seq > info.last_seq:
                    break
                self._take(message)
        self._position = info.last_seq
        wanted = set(names)
        self.counts = {name: counts for name, counts in self.counts.items() if name in wanted}
        await self._learn(sorted(wanted - self.counts.keys()))

    async def _learn(self, names: list[str]) -> None:
        for name in names:
            self.counts[name] = Counts()
        for at in range(0, len(names), NAMES_AT_ONCE):
            part = names[at : at + NAMES_AT_ONCE]
            for step in (subjects.RECORDED, subjects.STORED):
                asked = [subjects.chunk(step, name) for name in part]
                for message in (await self._jet.lasts(subjects.CHUNKS, asked, 0)).values():
                    self._take(message)
        slots = asyncio.Semaphore(READS_AT_ONCE)

        async def read_on(name: str) -> None:
            async with slots:
                stored, first = subjects.chunk(subjects.STORED, name), self.counts[name].recorded_seq + 1
                async for message in self._jet.read_all(subjects.CHUNKS, stored, first):
                    self._take(message)

        behind = [name for name in names if self.counts[name].stored < self.counts[name].recorded]
        await asyncio.gather(*map(read_on, behind))

    def _take(self, message: Message) -> None:
        counts = self.counts.get(subjects.session_of(message.subject))
        if counts is None:
            return
        try:
            event = read_chunk_event(message.data)
        except Rejected:
            return  # of a newer version, or foreign
        at_us = message.stream_time_ns // 1000
        if isinstance(event, Recorded) and event.index >= counts.recorded:
            counts.recorded, counts.recorded_us, counts.recorded_seq = event.index + 1, at_us, message.seq
        elif isinstance(event, Stored):
            counts.stored = max(counts.stored, event.index + 1)
            counts.stored_us = max(counts.stored_us, at_us)
