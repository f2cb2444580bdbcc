"""Releases the source of the first chunks of live sessions while the recording stream fills up.

    chunks 0 … n-1 stored, read back and true → SourceReleased in the log → their fragments purged

1. The prefix ends before the first chunk that is not stored, or that the store returns false: a replay makes
   that chunk from its source.
2. A fragment is purged if `record` had taken it when the prefix was complete. The fragments that the
   checkpoint there names stay, because the fold continues from them: open chunks, early fragments, an ending.
3. The log comes first: from then on no job needs these chunks, and a replay says why it cannot make them
   again. After a crash before the purge the next sweep purges. Any number of processes may do it at once.
4. Events of chunks stay until the session is sealed: its seal, `record` and `show` are made from them.

The order of sessions, and the time: handlers/retention/space.py.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from handlers.lifecycle.session import Session
from schemas import subjects
from schemas.config.logs import logger
from schemas.errors import LucidError, RefusedByState, Unavailable
from schemas.events.chunk import FoldState, Recorded, Stored
from schemas.events.commands import ReleaseSource
from schemas.events.upcast import read_chunk_event
from schemas.format.file_names import stored_chunk
from schemas.format.index import Entry
from schemas.ports import Blobs, Jet
from schemas.ports.messages import Message
from streams.event_store.chunk_progress import ChunkProgress
from streams.event_store.recordings import Recordings
from streams.event_store.session_log import SessionLog

STEP_BYTES = 1 << 30
"""Bytes released of one session at once: each release is one event in its log, which never expires."""
READ_CHUNKS = 64
RETRY_S = 3600.0
"""A session with a missing or false chunk is read again after so long."""
WHO = "retention"

log = logger("lucid.retention")


class Prefix(NamedTuple):
    """The stored chunks from the first on; plain: bytes of them that the stream may still hold."""

    session: Session
    chunks: int
    plain: int


@dataclass(slots=True)
class LiveSources:
    """Releases prefixes of live sessions. Its memory may be lost at any time."""

    recordings: Recordings
    chunks: Blobs
    _known: dict[str, ChunkProgress] = field(default_factory=dict)
    _purged: dict[bytes, int] = field(default_factory=dict)
    """By uid, the number of chunks whose source this process has purged."""
    _retry_us: dict[bytes, int] = field(default_factory=dict)
    """By uid, when a session with a missing or false chunk is read again."""

    @property
    def jet(self) -> Jet:
        return self.recordings.jet

    async def largest(self, sessions: Iterable[Session], now_us: int) -> Prefix | None:
        """The prefix that frees most, or None. Completes purges that a crash left. Raises Retryable."""
        found: list[Prefix] = []
        live = list(sessions)
        self._known = {one.id: self._known.get(one.id) or ChunkProgress(one.id) for one in live}
        for session in live:
            known = self._known[session.id]
            await known.read_on(self.jet, (subjects.STORED, subjects.RECORDED))
            if session.released_chunks > self._purged.get(session.uid, 0):
                await self._purge(session, known)
            if self._retry_us.get(session.uid, 0) > now_us:
                continue
            chunks = session.released_chunks
            while chunks in known.recorded and (chunks in known.stored or chunks in session.losses):
                chunks += 1
            if chunks > session.released_chunks:
                before = await self._state(known, session.released_chunks)
                after = await self._state(known, chunks)
                found.append(Prefix(session, chunks, after.plain - before.plain))
        return max(found, key=lambda prefix: prefix.plain, default=None)

    async def release(self, prefix: Prefix, now_us: int) -> bool:
        """Read the prefix back, log its release, purge it; False: nothing may be purged. Raises Retryable."""
        session, known = prefix.session, self._known[prefix.session.id]
        chunks = await self._read_back(session, known, prefix.chunks, now_us)
        if chunks == session.released_chunks:
            return False
        up_to = (await self._state(known, chunks)).at
        command = ReleaseSource(
            session=session.id, chunks=chunks, up_to=up_to, at_us=now_us, who=WHO, cause=f"{WHO}.{chunks}"
        )
        try:
            session = await SessionLog(self.jet).execute(command, session)
        except RefusedByState:
            return False  # it is being sealed or destroyed by now
        await self._purge(session, known)
        return True

    async def _read_back(self, session: Session, known: ChunkProgress, chunks: int, now_us: int) -> int:
        """The number of chunks from the first on that are as they were stored, at most STEP_BYTES more."""
        start, size = session.released_chunks, 0
        for first in range(start, chunks, READ_CHUNKS):
            indices = range(first, min(first + READ_CHUNKS, chunks))
            seqs = {index: known.stored[index] for index in indices if index not in session.losses}
            events = await self.jet.get_many(subjects.CHUNKS, list(seqs.values()))
            for index in indices:
                if size >= STEP_BYTES:
                    return index
                if index in seqs:
                    entry = _entry(events.get(seqs[index]), session)
                    size += entry.plain
                    if not await asyncio.to_thread(self._is_whole, session, entry):
                        self._retry_us[session.uid] = now_us + int(RETRY_S * 1e6)
                        log.error(
                            "source_kept",
                            session=session.id,
                            index=index,
                            error="the store does not give back the stored bytes",
                            cure=f"once it is sealed: lucid replay {session.id}",
                        )
                        return index
        return chunks

    def _is_whole(self, session: Session, entry: Entry) -> bool:
        """Whether the store returns the chunk as it was stored. In a thread."""
        try:
            found = self.chunks.content(stored_chunk(session.uid, entry.index))
        except LucidError:
            return False  # one unreadable file must not keep the source of every other session
        return found is not None and found.digest == entry.digest

    async def _state(self, known: ChunkProgress, chunks: int) -> FoldState:
        """The fold of `record` when it had closed so many chunks."""
        if not chunks:
            return FoldState(at=0, next_index=0, fragments=0, plain=0, tracks=())
        seq = known.recorded.get(chunks - 1)
        message = await self.jet.get(subjects.CHUNKS, seq) if seq else None
        event = read_chunk_event(message.data) if message else None
        if not isinstance(event, Recorded):
            raise _unread(known.session_id)
        return event.state

    async def _purge(self, session: Session, known: ChunkProgress) -> None:
        created = session.created
        assert created is not None
        recording = subjects.recording(created.host, session.id)
        state = await self._state(known, session.released_chunks)
        up_to, named = session.released_to, set(state.named)
        fragments = await self.recordings.purge(recording, min(up_to, state.resume - 1))
        async for message in self.recordings.read_all(recording):
            if message.seq > up_to:
                break
            if message.seq not in named:
                fragments += await self.recordings.delete(session.id, message.seq)
        self._purged[session.uid] = session.released_chunks
        log.info("prefix_purged", session=session.id, chunks=session.released_chunks, fragments=fragments)


def _entry(message: Message | None, session: Session) -> Entry:
    event = read_chunk_event(message.data) if message else None
    if not isinstance(event, Stored):
        raise _unread(session.id)
    return Entry.parse(event.entry)


def _unread(session_id: str) -> Unavailable:
    """The session is sealed by now, and its events are gone; or the replica that was read lags."""
    return Unavailable(f"the events of {session_id} are not there, or not yet", code="release.events")
