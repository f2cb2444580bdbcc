"""Reads where each chunk of an unsealed session is, and reads on from its last position.

1. The answer is exact at one sequence of CHUNKS and one of DEAD: events behind them are not folded yet.
2. The first look at a long session reads its `stored` events, and all events only of the chunks behind them.
3. It is a cache: it can be dropped and made again at any time. At most SESSIONS_KEPT sessions share
   PLACES_KEPT; the ones that were asked for longest ago are forgotten first.
4. It belongs to one log. A session that was created again, and a stream that was restored to an older state,
   are read anew: the last message that was folded is compared at each look.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from handlers.lifecycle.session import Session
from handlers.views.chunk_places import ChunkPlaces
from schemas import subjects
from schemas.errors import Rejected
from schemas.events.chunk import ChunkEvent, Dead, Ended
from schemas.events.upcast import read_chunk_event
from schemas.ports import Reader
from schemas.ports.messages import Message, StreamInfo
from schemas.telemetry.trace_context import TraceContext
from schemas.types import Frozen

PLACES_KEPT = 200_000
"""Of all sessions together: about 60 MB."""
SESSIONS_KEPT = 5000
"""About 1 kB each, beside their places."""
FIRST_LOOKS = 2
"""Sessions that are read for the first time at once."""
ALL_STEPS = "*"


class Folded(NamedTuple):
    """The last message that was folded. time_ns: 0, only the position is known."""

    seq: int = 0
    time_ns: int = 0


NOTHING = Folded()


@dataclass(slots=True)
class SessionPlaces:
    """The chunks of one session. Used by one task at a time."""

    session_id: str
    uid: bytes
    chunks: ChunkPlaces = field(default_factory=ChunkPlaces)
    at: int | None = None
    """Every event of CHUNKS up to this sequence is folded; None: nothing was read yet."""
    dead_at: int = 0
    now_us: int = 0
    """The server's clock at the last look."""
    dead_letters: int = 0
    """Of fragments and chunks, those that DEAD has let go included."""
    _chunk: Folded = NOTHING
    _letter: Folded = NOTHING

    async def read_on(self, jet: Reader, first: AbstractAsyncContextManager[object]) -> None:
        """Fold the events up to now. first: held while everything is read. Raises Unavailable."""
        chunks, dead = await self._ends(jet)
        if self.at is not None and await self._fits(jet, chunks, dead):
            await self._fold(jet, chunks, dead)
            return
        async with first:
            self._begin_again()
            await self._fold(jet, *await self._ends(jet))  # asked again: the wait may have been long

    async def _ends(self, jet: Reader) -> tuple[StreamInfo, StreamInfo]:
        return await asyncio.gather(jet.info(subjects.CHUNKS), jet.info(subjects.DEAD))

    async def _fits(self, jet: Reader, chunks: StreamInfo, dead: StreamInfo) -> bool:
        """Whether both streams still hold the events that were folded."""
        if chunks.last_seq < (self.at or 0) or dead.last_seq < self.dead_at:
            return False
        both = await asyncio.gather(_holds(jet, chunks, self._chunk), _holds(jet, dead, self._letter))
        return all(both)

    def _begin_again(self) -> None:
        self.chunks, self.at, self.dead_at, self.dead_letters = ChunkPlaces(), None, 0, 0
        self._chunk = self._letter = NOTHING

    async def _fold(self, jet: Reader, chunks: StreamInfo, dead: StreamInfo) -> None:
        """Read on behind the last message of each stream: a restored one may differ between it and `at`."""
        self.now_us = chunks.now_us
        if self.at is None:
            await self._read_stored(jet, chunks)
            self.at = min(self.chunks.behind(), chunks.last_seq)
            self._chunk = Folded(self.at)
        if chunks.last_seq > self.at:
            subject = subjects.chunk(ALL_STEPS, self.session_id)
            async for message in _up_to(jet, chunks, subject, self._chunk.seq + 1):
                self._take(message)
                self._chunk = Folded(message.seq, message.stream_time_ns)
            self.at = chunks.last_seq
        if dead.last_seq > self.dead_at:
            subject = subjects.dead("*", self.session_id)
            async for message in _up_to(jet, dead, subject, self._letter.seq + 1):
                self.dead_letters += 1
                self._bury(message)
                self._letter = Folded(message.seq, message.stream_time_ns)
            self.dead_at = dead.last_seq

    async def _read_stored(self, jet: Reader, chunks: StreamInfo) -> None:
        async for message in _up_to(jet, chunks, subjects.chunk(subjects.STORED, self.session_id), 1):
            self._take(message)

    def _take(self, message: Message) -> None:
        event = _event(message)
        if isinstance(event, ChunkEvent | Ended) and event.uid == self.uid:
            self.chunks.take(event, message.seq, message.stream_time_ns // 1000, trace_of(message))

    def _bury(self, message: Message) -> None:
        event = _event(message)
        if isinstance(event, Dead):
            self.chunks.bury(event)


@dataclass(slots=True)
class _Known:
    """One session of the cache. counted: the places that the sum of all sessions has of it."""

    places: SessionPlaces
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    counted: int = 0


class PlacesOfSessions:
    """The places of the sessions that were asked for last. Used from one event loop."""

    def __init__(self, jet: Reader) -> None:
        self._jet = jet
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._held = 0
        """The places of all known sessions."""
        self._first = asyncio.Semaphore(FIRST_LOOKS)

    @asynccontextmanager
    async def of(self, session: Session) -> AsyncIterator[SessionPlaces]:
        """The session's places, read up to now; shared with nobody until the block ends."""
        known = self._known_of(session)
        async with known.lock:
            # A failure leaves a position up to which all is folded: the next look reads on from there.
            try:
                await known.places.read_on(self._jet, self._first)
            finally:
                self._count(session.id, known)
            yield known.places

    def forget(self, session_id: str) -> None:
        """Drop a session, such as a sealed one: its log tells everything. A second call does nothing."""
        known = self._known.pop(session_id, None)
        if known is not None:
            self._held -= known.counted

    def _known_of(self, session: Session) -> _Known:
        known = self._known.get(session.id)
        if known is None or known.places.uid != session.uid:
            self.forget(session.id)
            known = self._known[session.id] = _Known(SessionPlaces(session.id, session.uid))
        self._known.move_to_end(session.id)
        if len(self._known) > SESSIONS_KEPT:
            self.forget(next(iter(self._known)))
        return known

    def _count(self, session_id: str, known: _Known) -> None:
        """Correct the sum after a look, and forget sessions until it fits."""
        if self._known.get(session_id) is not known:
            return  # forgotten meanwhile
        count = len(known.places.chunks.places)
        self._held += count - known.counted
        known.counted = count
        while self._held > PLACES_KEPT and len(self._known) > 1:
            self.forget(next(iter(self._known)))


def trace_of(message: Message) -> str:
    """The trace id in the message's `traceparent`; empty: it has none."""
    found = TraceContext.parse(message.headers.get("traceparent", ""))
    return found.trace_id if found else ""


async def _up_to(jet: Reader, stream: StreamInfo, subject: str, first: int) -> AsyncIterator[Message]:
    """The messages of a subject from `first` up to the end that `stream` names."""
    async for message in jet.read_all(stream.name, subject, first):
        if message.seq > stream.last_seq:
            return
        yield message


async def _holds(jet: Reader, stream: StreamInfo, folded: Folded) -> bool:
    """Whether the stream has this message, or none at its place: events are purged, and letters age."""
    message = await jet.get(stream.name, folded.seq) if folded.time_ns else None
    return message is None or message.stream_time_ns == folded.time_ns


def _event(message: Message) -> Frozen | None:
    """The event of a message; None: it is foreign, or of a newer version."""
    try:
        return read_chunk_event(message.data)
    except Rejected:
        return None
