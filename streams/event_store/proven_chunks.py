"""Folds the entries of one live session's chunks from its events, and reads on from its last position.

1. An entry in `stored` wins over one in `proven`: it was recomputed from the file that was read back. Of
   several, the last wins.
2. It is a cache: it can be dropped and made again at any time. The seal reads the log itself.
3. Many sessions share ENTRIES_KEPT. The ones that were asked for longest ago are forgotten first.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from handlers.lifecycle.session import Session
from schemas import subjects
from schemas.errors import Rejected
from schemas.events.chunk import Proven, Recorded, Stored
from schemas.events.upcast import read_chunk_event
from schemas.format.index import Entry
from schemas.ports import Reader
from streams.event_store.chunk_log import recorded_events

ENTRIES_KEPT = 100_000
"""Of all sessions together: about 30 MB."""
STEPS_READ = (subjects.PROVEN, subjects.STORED)


class ProvenChunks:
    """The entries of one session. Used by one task at a time."""

    def __init__(self, session_id: str, uid: bytes) -> None:
        self.session_id, self.uid = session_id, uid
        self._proven: dict[int, bytes] = {}
        self._stored: dict[int, bytes] = {}
        self._lost: dict[int, bytes] = {}
        self._position: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._proven) + len(self._stored) + len(self._lost)

    def entry(self, index: int) -> Entry | None:
        """The entry of a chunk; None: no event names one."""
        packed = self._packed(index)
        return Entry.parse(packed) if packed is not None else None

    def prefix(self) -> list[bytes]:
        """The packed entries from index 0 on, up to the first chunk that is not proven."""
        found: list[bytes] = []
        while (packed := self._packed(len(found))) is not None:
            found.append(packed)
        return found

    async def read_on(self, jet: Reader, session: Session) -> None:
        """Fold the events since the last read. Raises Unavailable."""
        for step in STEPS_READ:
            subject = subjects.chunk(step, self.session_id)
            async for message in jet.read_all(subjects.CHUNKS, subject, self._position.get(step, 0) + 1):
                self._position[step] = message.seq
                try:
                    event = read_chunk_event(message.data)
                except Rejected:
                    continue  # of a newer version, or foreign
                if isinstance(event, Proven | Stored) and event.uid == self.uid:
                    self._fold(event)
        if session.losses.keys() - self._lost.keys():
            async for recorded in recorded_events(jet, self.session_id):
                if isinstance(recorded, Recorded) and recorded.index in session.losses:
                    self._lost[recorded.index] = Entry.of(recorded).pack()

    def _packed(self, index: int) -> bytes | None:
        """An accepted loss stands, even if a later `stored` names it: as in the seal."""
        return self._lost.get(index) or self._stored.get(index) or self._proven.get(index)

    def _fold(self, event: Proven | Stored) -> None:
        proven = self._proven.get(event.index)
        if isinstance(event, Stored):
            self._stored[event.index] = proven if proven == event.entry else event.entry
        else:
            self._proven[event.index] = event.entry


class ProvenSessions:
    """The proven chunks of the sessions that were asked for last. Used from one event loop."""

    def __init__(self, jet: Reader) -> None:
        self._jet = jet
        self._known: OrderedDict[str, tuple[asyncio.Lock, ProvenChunks]] = OrderedDict()

    @asynccontextmanager
    async def of(self, session: Session) -> AsyncIterator[ProvenChunks]:
        """The session's chunks, read up to now; shared with nobody until the block ends."""
        lock, chunks = self._known.get(session.id) or (asyncio.Lock(), ProvenChunks(session.id, session.uid))
        self._known[session.id] = lock, chunks
        self._known.move_to_end(session.id)
        async with lock:
            await chunks.read_on(self._jet, session)
            self._forget()
            yield chunks

    def _forget(self) -> None:
        held = sum(len(chunks) for _, chunks in self._known.values())
        while held > ENTRIES_KEPT and len(self._known) > 1:
            _, (_, oldest) = self._known.popitem(last=False)
            held -= len(oldest)
