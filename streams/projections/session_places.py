"""Reads where each chunk of an unsealed session is, and reads on from its last position.

1. The answer is exact at one sequence of CHUNKS and one of DEAD: events behind them are not folded yet.
2. The first look at a long session reads its `stored` events, and all events only of the chunks behind them.
3. It is a cache: it can be dropped and made again at any time. Many sessions share PLACES_KEPT; the ones that
   were asked for longest ago are forgotten first.
"""

import asyncio
import re
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field

from handlers.lifecycle.session import Session
from handlers.views.chunk_places import ChunkPlaces
from schemas import subjects
from schemas.errors import Rejected
from schemas.events.chunk import ChunkEvent, Dead, Ended
from schemas.events.upcast import read_chunk_event
from schemas.ports import Reader
from schemas.ports.messages import Message, StreamInfo
from schemas.types import Frozen

PLACES_KEPT = 200_000
"""Of all sessions together: about 60 MB."""
FIRST_LOOKS = 2
"""Sessions that are read for the first time at once."""
ALL_STEPS = "*"
TRACE_PARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


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

    async def read_on(self, jet: Reader) -> None:
        """Fold the events up to now. Raises Unavailable."""
        chunks, dead = await asyncio.gather(jet.info(subjects.CHUNKS), jet.info(subjects.DEAD))
        self.now_us = chunks.now_us
        if self.at is None:
            await self._read_stored(jet, chunks)
            self.at = min(self.chunks.behind(), chunks.last_seq)
        if chunks.last_seq > self.at:
            subject = subjects.chunk(ALL_STEPS, self.session_id)
            async for message in _up_to(jet, chunks, subject, self.at + 1):
                self._take(message)
                self.at = message.seq
            self.at = chunks.last_seq
        if dead.last_seq > self.dead_at:
            subject = subjects.dead("*", self.session_id)
            async for message in _up_to(jet, dead, subject, self.dead_at + 1):
                self.dead_letters += 1
                self._bury(message)
                self.dead_at = message.seq
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


class PlacesOfSessions:
    """The places of the sessions that were asked for last. Used from one event loop."""

    def __init__(self, jet: Reader) -> None:
        self._jet = jet
        self._known: OrderedDict[str, tuple[asyncio.Lock, SessionPlaces]] = OrderedDict()
        self._first = asyncio.Semaphore(FIRST_LOOKS)

    @asynccontextmanager
    async def of(self, session: Session) -> AsyncIterator[SessionPlaces]:
        """The session's places, read up to now; shared with nobody until the block ends."""
        lock, places = self._known.get(session.id) or (
            asyncio.Lock(),
            SessionPlaces(session.id, session.uid),
        )
        self._known[session.id] = lock, places
        self._known.move_to_end(session.id)
        async with lock:
            # A failure leaves a position up to which all is folded: the next look reads on from there.
            async with self._first if places.at is None else nullcontext():
                await places.read_on(self._jet)
            self._forget()
            yield places

    def _forget(self) -> None:
        held = sum(len(places.chunks.places) for _, places in self._known.values())
        while held > PLACES_KEPT and len(self._known) > 1:
            _, (_, oldest) = self._known.popitem(last=False)
            held -= len(oldest.chunks.places)


def trace_of(message: Message) -> str:
    """The trace id in the message's `traceparent`; empty: it has none."""
    found = TRACE_PARENT.fullmatch(message.headers.get("traceparent", ""))
    return found[1] if found else ""


async def _up_to(jet: Reader, stream: StreamInfo, subject: str, first: int) -> AsyncIterator[Message]:
    """The messages of a subject from `first` up to the end that `stream` names."""
    async for message in jet.read_all(stream.name, subject, first):
        if message.seq > stream.last_seq:
            return
        yield message


def _event(message: Message) -> Frozen | None:
    """The event of a message; None: it is foreign, or of a newer version."""
    try:
        return read_chunk_event(message.data)
    except Rejected:
        return None
