"""Owns what a stage does around its pure function: find the claim and its bytes, keep what was made.

1. A job finds bytes in memory (streams.claims) or has them made again (streams.remake).
2. A claim of a session that is sealed or shredded, or of a chunk that is lost on purpose, is obsolete: the
   job says nothing, and its message is acknowledged.
3. A missing key is waited for; a shredded session's is not.
"""

import asyncio
import logging
from concurrent.futures import Executor
from typing import TypeVar

from handlers.stages.context import Context
from handlers.stages.merkle import merkle
from handlers.stages.store import Found, store
from infra.blobs_disk import DiskBlobs
from infra.jetstream import Jet
from schemas import subjects
from schemas.chunk_events import (
    Chunked,
    ChunkEvent,
    Compressed,
    Encrypted,
    Ended,
    Proven,
    Recorded,
    StageEvent,
    Stored,
)
from schemas.digest import Buffer
from schemas.errors import EvidenceFalse, Rejected, Unavailable
from schemas.jetstream import Message
from schemas.lifecycle_events import State
from schemas.upcast import read_event, read_recorded
from streams.claims import Claims, Work
from streams.directory import Directory
from streams.keystore import KeyStore
from streams.remake import Remake

log = logging.getLogger("lucid.jobs")
E = TypeVar("E", bound=ChunkEvent)
S = TypeVar("S", bound=StageEvent)


class Jobs:
    """The five jobs that follow `record`, over one process's memory."""

    def __init__(
        self,
        jet: Jet,
        claims: Claims,
        directory: Directory,
        keys: KeyStore,
        blobs: DiskBlobs,
        threads: Executor,
        disk: Executor,
    ) -> None:
        self._jet, self._claims, self._directory, self._keys = jet, claims, directory, keys
        self._blobs, self._disk = blobs, disk
        self._remake = Remake(jet, threads)

    # one job a stage

    async def await_credit(self, message: Message) -> None:
        """Wait until the chunk's bytes fit into memory; the time of job `chunk` begins after that."""
        found = await self._claimed(message)
        if found is not None:
            await self._claims.take_credit(found[2])

    async def chunk(self, message: Message) -> StageEvent | None:
        found = await self._claimed(message)
        if found is None:
            return None
        run, context, work = found
        made, work.plain = await self._remake.plain(run, context, self._claims.start(work))
        return made

    async def compress(self, message: Message) -> StageEvent | None:
        event = _expect(read_event(message.data), Chunked)
        found = await self._context(event, event.recorded)
        if found is None:
            return None
        made, _ = await self._payload(event.run, *found)
        return made

    async def encrypt(self, message: Message) -> StageEvent | None:
        event = _expect(read_event(message.data), Compressed)
        found = await self._context(event, event.recorded)
        if found is None:
            return None
        made, _ = await self._sealed(event.run, *found)
        return made

    async def merkle(self, message: Message) -> StageEvent | None:
        event = _expect(read_event(message.data), Encrypted)
        found = await self._context(event, event.recorded)
        return merkle(event, found[0]) if found else None

    async def store(self, message: Message) -> StageEvent | None:
        event = _expect(read_event(message.data), Proven)
        found = await self._context(event, event.recorded)
        if found is None:
            return None
        context, work = found
        _, sealed = await self._sealed(event.run, context, work)
        name = f"{event.uid.hex()}/{event.index:010}"
        stored = await asyncio.get_running_loop().run_in_executor(
            self._disk, self._store, name, sealed, event, context
        )
        self._claims.finish(event.uid, event.index)
        return stored

    def _store(self, name: str, sealed: Buffer, event: Proven, context: Context) -> Stored:
        """Put, read back, judge; in a thread. A crash anywhere: the next try finds the same file or none."""
        self._blobs.put(name, sealed)
        read_back = self._blobs.read(name)
        if read_back is None:
            raise Unavailable(f"chunk {name} vanished while it was stored", code="store.vanished", place=name)
        found, stored = store(event, read_back, context)
        if found is Found.FALSE:
            kept = self._blobs.quarantine(name)
            raise EvidenceFalse(
                f"chunk {name}: the store held other bytes, now quarantine/{kept}",
                code="store.false",
                place=name,
            )
        if found is Found.OTHER_BUILD:
            log.warning("chunk_kept session=%s index=%d build=other", event.session, event.index)
        return stored

    # bytes, from memory or made again

    async def _context(self, event: ChunkEvent, sequence: int) -> tuple[Context, Work] | None:
        """The chunk's surroundings and its memory; None when the claim is obsolete."""
        session = self._directory.get(event.session)
        if session is None or session.created is None:
            await self._directory.caught_up()
            session = self._directory.get(event.session)
        if session is None or session.created is None or session.uid != event.uid:
            raise Rejected(f"no session {event.session} with this uid", code="session.absent")
        over = session.sealed or session.state in (State.CLEANUP, State.DESTROYED)
        keys = await self._keys.session_keys(event.uid, session.dek_id)
        if over or keys is None or event.index in session.losses:
            self._claims.finish(event.uid, event.index)
            return None
        work = self._claims.find(event.uid, event.index)
        if work is None:
            recorded = event if isinstance(event, Recorded) else await self._recorded(event, sequence)
            work = self._claims.work(recorded)
        return Context(work.recorded, sequence, session.created.settings, keys), work

    async def _claimed(self, message: Message) -> tuple[int, Context, Work] | None:
        """Run, surroundings and memory of a claim, first or given out again."""
        event = read_event(message.data)
        if isinstance(event, Ended):
            return None
        claim = _expect(event, ChunkEvent)
        sequence = message.seq if isinstance(event, Recorded) else _expect(event, StageEvent).recorded
        found = await self._context(claim, sequence)
        return (claim.run, *found) if found else None

    async def _recorded(self, event: ChunkEvent, sequence: int) -> Recorded:
        message = await self._jet.get(subjects.CHUNKS, sequence)
        recorded = read_recorded(message.data) if message else None
        if not isinstance(recorded, Recorded) or (recorded.uid, recorded.index) != (event.uid, event.index):
            raise Rejected(
                f"event {sequence} does not record chunk {event.index} of {event.session}", code="chunk.claim"
            )
        return recorded

    async def _payload(self, run: int, context: Context, work: Work) -> tuple[Compressed, Buffer]:
        if work.payload is None:
            work.payload = await self._remake.payload(run, context, work.plain)
            work.plain = None
        return _under(run, work.payload)

    async def _sealed(self, run: int, context: Context, work: Work) -> tuple[Encrypted, Buffer]:
        if work.sealed is None:
            payload = await self._payload(run, context, work)
            work.sealed = await self._remake.sealed(run, context, payload)
            work.payload = None
        return _under(run, work.sealed)


def _under(run: int, made: tuple[S, Buffer]) -> tuple[S, Buffer]:
    """What is in memory, as this run says it: under an older run's message id it would be swallowed."""
    event, held = made
    return (event if event.run == run else event.model_copy(update={"run": run})), held


def _expect(event: object, kind: type[E]) -> E:
    if not isinstance(event, kind):
        raise Rejected(f"{type(event).__name__} where {kind.__name__} belongs", code="event.unexpected")
    return event
