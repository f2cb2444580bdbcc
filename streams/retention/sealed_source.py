"""Purges the source of sealed sessions: their fragments, and the events of their chunks.

    every listed chunk read back and true → chunk events purged → fragments purged

1. Nothing is purged before the store has returned every chunk that the newest manifest lists, with its
   digest. A chunk that is missing or false keeps the source: a replay repairs it from there. An error says so
   once every RETRY_S.
2. Events are purged first: fragments without events can be recorded again, events without fragments are of no
   use. So fragments in the stream mean that a purge is not complete. After a crash anywhere the next sweep
   completes it. Purging can be repeated; any number of processes may do it.
3. The last event of a recording, `ended`, stays: it is the checkpoint of `record`, and holds the totals.
4. Fragments that come under a purged session's name later count for nothing, and are purged the same way.
5. Fragments under the name of a destroyed session are ciphertext of no key. Each sweep purges them once,
   however many come: destroying waits for none of them.
6. If no sealed source is left, the stored prefixes of live sessions are released (retention/live_source.py).
7. Each shard is judged by its own space. A full one frees its own sessions, and waits for no other, also not
   for one that is not readable.

Limits: fragments under the name of a session that was never created stay.
The order of sessions: handlers/retention/space.py.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from handlers.lifecycle.session import Session
from handlers.retention.space import is_filling, may_purge, may_release, next_to_purge
from schemas import subjects
from schemas.buffers import Bytes
from schemas.config.logs import logger
from schemas.errors import EvidenceFalse, LucidError, Rejected, Retryable
from schemas.events.chunk import Ended
from schemas.events.upcast import read_chunk_event
from schemas.format import file_names
from schemas.format.digest import h
from schemas.subjects import SESSION_ID
from streams.event_store.recordings import Recordings
from streams.event_store.session_directory import SessionDirectory
from streams.evidence.evidence_store import EvidenceStore
from streams.pipeline.stages import STAGES
from streams.retention.live_source import RETRY_S, LiveSources
from streams.scheduling import clock
from streams.scheduling.clock import Clock
from streams.scheduling.retry import retry

SWEEP_S = 10.0
MANIFESTS_MOST = 1000
"""How many manifests are remembered as read back."""
STEPS = (*(stage.makes for stage in STAGES if stage.makes != subjects.RECORDED), subjects.REDRIVEN)
"""Steps whose events are all purged; of `recorded` the last event stays."""

log = logger("lucid.retention")


@dataclass(slots=True)
class _Shard:
    """What is remembered of one recording stream."""

    stream: str
    live: LiveSources
    """Of its own: it remembers only the sessions of its last look."""
    sealed: set[str] = field(default_factory=set)
    """Sealed sessions of the shard that may have a source, as of this sweep."""
    names_to_skip: set[str] = field(default_factory=set)
    """Names in the stream that need no look: of no session, or of a finished one that may not be purged."""
    listed_seq: int = -1
    """Its last stream sequence when its names were last listed."""


@dataclass(slots=True)
class SourceRetention:
    """Runs until cancelled. Its memory may be lost at any time."""

    recordings: Recordings
    directory: SessionDirectory
    evidence: EvidenceStore
    retention_s: float
    clock_us: Clock = clock.now_us
    _read_back_manifests: dict[bytes, None] = field(default_factory=dict)
    """Digests of the manifests whose chunks were all read back, the newest MANIFESTS_MOST."""
    _retry_us: dict[tuple[str, int], int] = field(default_factory=dict)
    """Sessions with a missing or false chunk, by name and time of seal: when they are read again."""
    _shards: tuple[_Shard, ...] = field(init=False)

    def __post_init__(self) -> None:
        chunks = self.evidence.chunks
        self._shards = tuple(
            _Shard(stream, LiveSources(self.recordings, chunks)) for stream in self.recordings.streams
        )

    async def run(self) -> None:
        """Purge every SWEEP_S until cancelled."""
        await retry(self.directory.ready)
        while True:
            try:
                await self.purge_due()
            except Retryable as error:
                log.warning("retention_waits", error=error)
            except Exception:
                # Space is freed later; sessions must not stop for it.
                log.exception("retention_failed")
            await asyncio.sleep(SWEEP_S)

    async def purge_due(self) -> list[str]:
        """Purge every source that is due, sealed ones first. Returns session names. Raises Retryable.

        An error is raised only after every shard had its turn.
        """
        now_us = self.clock_us()
        purged: list[str] = []
        failed: Exception | None = None
        self._divide_sealed()
        for shard in self._shards:
            try:
                purged += await self._purge_sealed(shard, now_us)
                purged += await self._release_live(shard, now_us)
            except Exception as error:
                log.info("shard_unpurged", stream=shard.stream, error=repr(error))
                failed = failed or error
        if failed is not None:
            raise failed
        return purged

    async def _release_live(self, shard: _Shard, now_us: int) -> list[str]:
        released: list[str] = []
        tried: set[str] = set()
        while await self._is_filling(shard):
            live = [
                one
                for one in self.directory.sessions()
                if may_release(one) and one.id not in tried and self._is_in(shard, one.id)
            ]
            prefix = await shard.live.largest(live, now_us)
            if prefix is None:
                break
            if await shard.live.release(prefix, now_us):
                released.append(prefix.session.id)
                await self.directory.caught_up()
            else:
                tried.add(prefix.session.id)
        return released

    def _divide_sealed(self) -> None:
        """Once a sweep: there may be very many."""
        sealed: defaultdict[str, set[str]] = defaultdict(set)
        for name in self.directory.sealed:
            sealed[self.recordings.stream_of(name)].add(name)
        for shard in self._shards:
            shard.sealed = sealed[shard.stream]

    def _is_in(self, shard: _Shard, name: str) -> bool:
        return self.recordings.stream_of(name) == shard.stream

    async def _is_filling(self, shard: _Shard) -> bool:
        info = await self.recordings.info(shard.stream)
        return is_filling(info.bytes, info.max_bytes)

    async def _purge_sealed(self, shard: _Shard, now_us: int) -> list[str]:
        purged: list[str] = []
        await self._list_sources(shard, now_us)
        waiting = self._waiting(shard, now_us)
        for at_us, name in sorted((at_us, name) for name, at_us in waiting.items()):
            if await self._next(shard, {name: at_us}, now_us) is None:
                break  # sessions that were sealed later are not due either
            session = await self.directory.find(name)
            # A session that is being destroyed takes its source with it.
            if session is None or not may_purge(session) or not await self.recordings.is_recorded(name):
                self.directory.source_gone(name)
            elif await self._is_whole(session, at_us, now_us) and await self._is_unchanged(session):
                await self._purge(name)
                self.directory.source_gone(name)
                purged.append(name)
        return purged

    async def _list_sources(self, shard: _Shard, now_us: int) -> None:
        """Compare the names in the stream with the sealed and finished sessions, and purge late fragments.

        Nothing is listed if nothing came since the last time and nothing is due. If the names are too many to
        list, each source that is due is looked up by itself, and late fragments stay.
        """
        last_seq = (await self.recordings.info(shard.stream)).last_seq
        due = await self._next(shard, self._waiting(shard, now_us), now_us)
        if due is None and last_seq == shard.listed_seq:
            return
        recorded = await self.recordings.names(shard.stream)
        if recorded is None:
            return
        for name in shard.sealed - recorded:
            self.directory.source_gone(name)
        shard.names_to_skip &= recorded
        for name in recorded.difference(shard.sealed, shard.names_to_skip):
            session = self.directory.get(name)
            if session is None and SESSION_ID.fullmatch(name):
                session = await self.directory.find(name)
            if session is not None and session.shredded is not None:
                await self._purge_late(name)
            elif session is not None and may_purge(session):
                self.directory.has_source(session)
                shard.sealed.add(name)
            elif session is None or session.finished:
                shard.names_to_skip.add(name)
        shard.listed_seq = last_seq

    async def _purge_late(self, name: str) -> None:
        fragments = await self.recordings.purge(subjects.recording_by_anyone(name))
        log.info("late_purged", session=name, fragments=fragments)

    def _waiting(self, shard: _Shard, now_us: int) -> dict[str, int]:
        """Sealed sessions of the shard whose source may be purged, with the time of their seal."""
        sealed, again_us = self.directory.sealed, self._retry_us
        held = {name: sealed[name] for name in shard.sealed if name in sealed}
        return {name: at for name, at in held.items() if again_us.get((name, at), 0) <= now_us}

    async def _next(self, shard: _Shard, waiting: Mapping[str, int], now_us: int) -> str | None:
        """The session of `waiting` whose source goes next; None: none is due."""
        info = await self.recordings.info(shard.stream)
        return next_to_purge(waiting, now_us, self.retention_s, info.bytes, info.max_bytes)

    async def _is_whole(self, session: Session, at_us: int, now_us: int) -> bool:
        """Whether every chunk is as it was sealed.

        at_us: the directory's time of the seal, perhaps some ms late.
        """
        digest = session.seals[-1].manifest
        if digest in self._read_back_manifests:
            return True
        try:
            await asyncio.to_thread(self._read_back, session)
        except LucidError as error:
            self._retry_us[session.id, at_us] = now_us + int(RETRY_S * 1e6)
            log.error("source_kept", session=session.id, error=error, cure=f"lucid replay {session.id}")
            return False
        self._read_back_manifests[digest] = None
        if len(self._read_back_manifests) > MANIFESTS_MOST:
            self._read_back_manifests.pop(next(iter(self._read_back_manifests)))
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

    async def _is_unchanged(self, session: Session) -> bool:
        """Whether the session is as it was when its chunks were read."""
        now = await self.directory.find(session.id)
        return now is not None and may_purge(now) and now.seals == session.seals

    async def _purge(self, name: str) -> None:
        recorded, jet = subjects.chunk(subjects.RECORDED, name), self.recordings.jet
        last = await jet.last(subjects.CHUNKS, recorded)
        up_to = last.seq - 1 if last is not None and _is_end(last.data) else None
        events = await jet.purge(subjects.CHUNKS, recorded, up_to)
        for step in STEPS:
            events += await jet.purge(subjects.CHUNKS, subjects.chunk(step, name))
        # Of every host: fragments of another one under this name never counted.
        fragments = await self.recordings.purge(subjects.recording_by_anyone(name))
        log.info("source_purged", session=name, fragments=fragments, events=events)


def _is_end(data: Bytes) -> bool:
    try:
        return isinstance(read_chunk_event(data), Ended)
    except Rejected:
        return False
