"""Owns letting the source of a sealed session go: its fragments, and the events of its chunks.

    every listed chunk read back and true → chunk events purged → fragments purged

1. Nothing goes before the store has given back every chunk that the newest manifest lists, with its digest.
   One that is missing or false keeps the source, and says so as an error once every AGAIN_S: a replay needs
   that source to mend it.
2. Events go first: fragments without events can be recorded again, events without fragments are no use. So a
   session with fragments is one whose purge is not complete, and a crash anywhere is made good by the next
   look. Purging is idempotent, and any number of processes may do it.
3. The last event of a recording, `ended`, stays: it is record's checkpoint, and tells how much there was.
4. What comes under a purged session's name later counts for nothing, and goes the same way.
5. Fragments under the name of a destroyed session are ciphertext of no key. Each look takes them away once,
   however many come: destroying waits for none of them.
6. Where no sealed source is left to go, stored prefixes of live sessions do (streams.retention.live_source).

Limits: fragments under the name of a session that was never created stay.
Which session is next: handlers.retention.space.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from handlers.lifecycle.session import Session
from handlers.retention.space import is_filling, may_go, may_release, next_to_purge
from schemas import subjects
from schemas.buffers import Bytes
from schemas.errors import EvidenceFalse, LucidError, Rejected, Retryable
from schemas.events.chunk import Ended
from schemas.events.upcast import read_chunk_event
from schemas.format import file_names
from schemas.format.digest import h
from schemas.ports import Jet
from schemas.subjects import SESSION_ID
from streams.event_store.recordings import is_recorded, recorded_names
from streams.event_store.session_directory import SessionDirectory
from streams.evidence.evidence_store import EvidenceStore
from streams.retention.live_source import AGAIN_S, Release
from streams.scheduling import clock
from streams.scheduling.clock import Clock
from streams.scheduling.retry import retry

SWEEP_S = 10.0
WHOLE_MOST = 1000
STEPS = (
    subjects.CHUNKED,
    subjects.COMPRESSED,
    subjects.ENCRYPTED,
    subjects.PROVEN,
    subjects.STORED,
    subjects.REDRIVEN,
)

log = logging.getLogger("lucid.retention")


@dataclass(slots=True)
class Retention:
    """Runs until cancelled. What it remembers can be lost."""

    jet: Jet
    directory: SessionDirectory
    evidence: EvidenceStore
    retention_s: float
    clock_us: Clock = clock.now_us
    _whole: dict[bytes, None] = field(default_factory=dict)
    """Digests of manifests whose chunks were all read back, the newest WHOLE_MOST."""
    _kept_until_us: dict[tuple[str, int], int] = field(default_factory=dict)
    """Sessions with the time of their seal whose chunks were not: when they are read again."""
    _strange: set[str] = field(default_factory=set)
    """Names in the stream that belong to no session, or to a finished one that has no source."""
    _noticed_seq: int = -1
    """The last stream sequence of RECORDINGS when its names were last looked at."""
    _release: Release = field(init=False)

    def __post_init__(self) -> None:
        self._release = Release(self.jet, self.evidence.chunks)

    async def run(self) -> None:
        """Look every SWEEP_S until cancelled."""
        await retry(self.directory.ready)
        while True:
            try:
                await self.look()
            except Retryable as error:
                log.warning("retention_waits error=%s", error)
            except Exception:
                # Space is freed later; sessions must not stop for it.
                log.exception("retention_failed")
            await asyncio.sleep(SWEEP_S)

    async def look(self) -> list[str]:
        """Purge every source that is due, whole ones first; the sessions' names. Raises Retryable."""
        now_us = self.clock_us()
        return [*await self._purge_sealed(now_us), *await self._release_live(now_us)]

    async def _release_live(self, now_us: int) -> list[str]:
        released: list[str] = []
        tried: set[str] = set()
        while await self._is_filling():
            live = [one for one in self.directory.sessions() if may_release(one) and one.id not in tried]
            prefix = await self._release.largest(live, now_us)
            if prefix is None:
                break
            if await self._release.let_go(prefix, now_us):
                released.append(prefix.session.id)
                await self.directory.caught_up()
            else:
                tried.add(prefix.session.id)
        return released

    async def _is_filling(self) -> bool:
        info = await self.jet.info(subjects.RECORDINGS)
        return is_filling(info.bytes, info.max_bytes)

    async def _purge_sealed(self, now_us: int) -> list[str]:
        purged: list[str] = []
        await self._notice(now_us)
        waiting = self._waiting(now_us)
        for at_us, name in sorted((at_us, name) for name, at_us in waiting.items()):
            if await self._next({name: at_us}, now_us) is None:
                break  # those that were sealed later are not due either
            session = await self.directory.find(name)
            # A session that is being destroyed takes its source with it.
            if session is None or not may_go(session) or not await is_recorded(self.jet, name):
                self.directory.source_gone(name)
            elif await self._is_whole(session, at_us, now_us) and await self._unmoved(session):
                await self._purge(name)
                self.directory.source_gone(name)
                purged.append(name)
        return purged

    async def _notice(self, now_us: int) -> None:
        """Look which recordings are there: of what is sealed, and of what came since under finished names.

        Not when nothing came since the last look, and nothing is due; nor when there are too many to tell:
        then each that is due is looked for by itself, and what comes under a finished name stays.
        """
        last_seq = (await self.jet.info(subjects.RECORDINGS)).last_seq
        due = await self._next(self._waiting(now_us), now_us)
        if due is None and last_seq == self._noticed_seq:
            return
        there = await recorded_names(self.jet)
        if there is None:
            return
        sealed = tuple(self.directory.sealed)
        for name in sealed:
            if name not in there:
                self.directory.source_gone(name)
        self._strange &= there
        for name in there.difference(sealed, self._strange):
            session = self.directory.get(name)
            if session is None and SESSION_ID.fullmatch(name):
                session = await self.directory.find(name)
            if session is not None and session.shredded is not None:
                await self._purge_late(name)
            elif session is not None and may_go(session):
                self.directory.has_source(session)
            elif session is None or session.finished:
                self._strange.add(name)
        self._noticed_seq = last_seq

    async def _purge_late(self, name: str) -> None:
        fragments = await self.jet.purge(subjects.RECORDINGS, subjects.recording_by_anyone(name))
        log.info("late_purged session=%s fragments=%d", name, fragments)

    def _waiting(self, now_us: int) -> dict[str, int]:
        """Sealed sessions whose source may go, with the time of their seal."""
        sealed, kept_until_us = self.directory.sealed, self._kept_until_us
        return {name: at for name, at in sealed.items() if kept_until_us.get((name, at), 0) <= now_us}

    async def _next(self, waiting: Mapping[str, int], now_us: int) -> str | None:
        info = await self.jet.info(subjects.RECORDINGS)
        return next_to_purge(waiting, now_us, self.retention_s, info.bytes, info.max_bytes)

    async def _is_whole(self, session: Session, at_us: int, now_us: int) -> bool:
        """at_us: what the directory says of its seal's time, perhaps some ms later than the seal's own."""
        digest = session.seals[-1].manifest
        if digest in self._whole:
            return True
        try:
            await asyncio.to_thread(self._read_back, session)
        except LucidError as error:
            self._kept_until_us[session.id, at_us] = now_us + int(AGAIN_S * 1e6)
            log.error("source_kept session=%s error=%s; lucid replay %s", session.id, error, session.id)
            return False
        self._whole[digest] = None
        if len(self._whole) > WHOLE_MOST:
            self._whole.pop(next(iter(self._whole)))
        return True

    def _read_back(self, session: Session) -> None:
        """In a thread, one chunk after the other. Raises EvidenceFalse, Unavailable."""
        manifest = self.evidence.manifest(session)
        listed = [item.entry for item in (*manifest.chunks, *manifest.index)]
        for entry in listed:
            name = file_names.stored_chunk(session.uid, entry.index)
            found = None if entry.lost else self.evidence.chunks.read(name)
            if not entry.lost and (found is None or h(found) != entry.digest):
                what = "missing" if found is None else "not what was sealed"
                raise EvidenceFalse(f"chunk {name} is {what}", code="chunk.digest", place=name)

    async def _unmoved(self, session: Session) -> bool:
        """Whether the session is as it was when its chunks were read."""
        now = await self.directory.find(session.id)
        return now is not None and may_go(now) and now.seals == session.seals

    async def _purge(self, name: str) -> None:
        recorded = subjects.chunk(subjects.RECORDED, name)
        last = await self.jet.last(subjects.CHUNKS, recorded)
        up_to = last.seq - 1 if last is not None and _is_end(last.data) else None
        events = await self.jet.purge(subjects.CHUNKS, recorded, up_to)
        for step in STEPS:
            events += await self.jet.purge(subjects.CHUNKS, subjects.chunk(step, name))
        # Of every host: what another one sent under this name never counted.
        fragments = await self.jet.purge(subjects.RECORDINGS, subjects.recording_by_anyone(name))
        log.info("source_purged session=%s fragments=%d events=%d", name, fragments, events)


def _is_end(data: Bytes) -> bool:
    try:
        return isinstance(read_chunk_event(data), Ended)
    except Rejected:
        return False
