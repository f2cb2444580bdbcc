"""Owns letting the source of a live session's first chunks go, while the recording stream fills up.

    chunks 0 … n-1 stored, read back and true → SourceReleased in the log → their fragments purged

1. From the first chunk on, and only up to the first that is not stored, or whose file is not what was stored:
   that one's source is what a replay makes it from.
2. A fragment goes when record had taken it by the last of those chunks, unless its checkpoint there names it:
   what continues the fold stays. A track that rests on an open chunk, or on a fragment that came early, keeps
   these and no more.
3. The log first: from then on no job wants these chunks, and a replay says why it cannot make them again. A
   crash before the purge: the next look makes good for it. Any number of processes may do it at once.
4. Events of chunks stay until the session is sealed: its seal, record and `show` rest on them.
Which sessions, and when: handlers.retention.space.
"""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from handlers.lifecycle.session import Session
from schemas import subjects
from schemas.errors import LucidError, RefusedByState, Unavailable
from schemas.events.chunk import FoldState, Recorded, Stored
from schemas.events.commands import ReleaseSource
from schemas.events.upcast import read_chunk_event
from schemas.format.file_names import stored_chunk
from schemas.format.index import Entry
from schemas.ports import Blobs, Jet
from schemas.ports.messages import Message
from streams.event_store.chunk_progress import ChunkProgress
from streams.event_store.session_log import SessionLog

STEP_BYTES = 1 << 30
"""What is let go of one session at once: one event in its log, which never expires."""
READ_CHUNKS = 64
AGAIN_S = 3600.0
"""How long a session is left alone whose evidence is not whole."""
WHO = "retention"

log = logging.getLogger("lucid.retention")


class Prefix(NamedTuple):
    """The stored chunks from the first on, and how much of the stream they may still take."""

    session: Session
    chunks: int
    plain: int


@dataclass(slots=True)
class Release:
    """What it remembers can be lost."""

    jet: Jet
    chunks: Blobs
    _known: dict[str, ChunkProgress] = field(default_factory=dict)
    _purged: dict[bytes, int] = field(default_factory=dict)
    """By uid, of how many chunks this process has purged the source."""
    _kept_until_us: dict[bytes, int] = field(default_factory=dict)
    """By uid, when a session whose next chunk was not whole is looked at again."""

    async def largest(self, sessions: Iterable[Session], now_us: int) -> Prefix | None:
        """The prefix that frees most, or None. Completes what a crash has left. Raises Retryable."""
        found: list[Prefix] = []
        live = list(sessions)
        self._known = {one.id: self._known.get(one.id) or ChunkProgress(one.id) for one in live}
        for session in live:
            known = self._known[session.id]
            await known.read_on(self.jet, (subjects.STORED, subjects.RECORDED))
            if session.released_chunks > self._purged.get(session.uid, 0):
                await self._purge(session, known)
            if self._kept_until_us.get(session.uid, 0) > now_us:
                continue
            chunks = session.released_chunks
            while chunks in known.recorded and (chunks in known.stored or chunks in session.losses):
                chunks += 1
            if chunks > session.released_chunks:
                before = await self._state(known, session.released_chunks)
                after = await self._state(known, chunks)
                found.append(Prefix(session, chunks, after.plain - before.plain))
        return max(found, key=lambda prefix: prefix.plain, default=None)

    async def let_go(self, prefix: Prefix, now_us: int) -> bool:
        """Read back what is to go, log it, purge it; False: nothing of it may go. Raises Retryable."""
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
        """How many chunks from the first on are what was stored, at most STEP_BYTES more than were let go."""
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
                        self._kept_until_us[session.uid] = now_us + int(AGAIN_S * 1e6)
                        log.error(
                            "source_kept session=%s index=%d: the store does not give back what was stored; "
                            "once it is sealed: lucid replay %s",
                            *(session.id, index, session.id),
                        )
                        return index
        return chunks

    def _is_whole(self, session: Session, entry: Entry) -> bool:
        """In a thread."""
        try:
            found = self.chunks.content(stored_chunk(session.uid, entry.index))
        except LucidError:
            return False  # one file that cannot be read must not keep the source of every other session
        return found is not None and found.digest == entry.digest

    async def _state(self, known: ChunkProgress, chunks: int) -> FoldState:
        """Record's fold when it had closed so many chunks."""
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
        fragments = await self.jet.purge(subjects.RECORDINGS, recording, min(up_to, state.resume - 1))
        async for message in self.jet.read_all(subjects.RECORDINGS, recording):
            if message.seq > up_to:
                break
            if message.seq not in named:
                fragments += await self.jet.delete(subjects.RECORDINGS, message.seq)
        self._purged[session.uid] = session.released_chunks
        log.info(
            "prefix_purged session=%s chunks=%d fragments=%d", session.id, session.released_chunks, fragments
        )


def _entry(message: Message | None, session: Session) -> Entry:
    event = read_chunk_event(message.data) if message else None
    if not isinstance(event, Stored):
        raise _unread(session.id)
    return Entry.parse(event.entry)


def _unread(session_id: str) -> Unavailable:
    """It is sealed by now, and its events are gone; or the replica that was read lags."""
    return Unavailable(f"the events of {session_id} are not there, or not yet", code="release.events")
