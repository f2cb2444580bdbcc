"""Does each stage's job around its pure function: finds the claim and its bytes, keeps the result.

1. A job finds bytes in memory (chunk_memory.py) or has them made again (recompute.py).
2. A claim is obsolete if its session is sealed or shredded, or if its chunk's loss was accepted. Then the job
   has no result, and its message is acknowledged.
3. A missing key is waited for; a shredded session's key is not.
4. A job holds its session's key, and checks the key again before its result counts. A result that was made
   across an erasure is dropped, and removed from the store.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple, TypeVar

from pydantic import ValidationError

from handlers.lifecycle.session import Session
from handlers.stages.context import Context
from handlers.stages.merkle import merkle
from handlers.stages.store import keep, store
from schemas import subjects
from schemas.config.logs import logger
from schemas.errors import Denied, EvidenceFalse, RefusedByState, Rejected, Unavailable
from schemas.events.chunk import (
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
from schemas.events.upcast import read_chunk_event, read_recorded
from schemas.format.digest import Buffer
from schemas.format.file_names import stored_chunk
from schemas.ports import Blobs
from schemas.ports.messages import Message
from schemas.ports.metrics import NO_METER, Meter
from streams.event_store.event_store import EventStore
from streams.keys.held_keys import HeldKeys
from streams.keys.keystore import KeyStore
from streams.pipeline.chunk_memory import ChunkMemory, Work
from streams.pipeline.recompute import Recompute
from streams.pipeline.runner import Lane
from streams.scheduling.threads import Threads, is_slow

log = logger("lucid.jobs")
E = TypeVar("E", bound=ChunkEvent)
S = TypeVar("S", bound=StageEvent)


class Claim(NamedTuple):
    """One claim while a job redeems it."""

    run: int
    context: Context
    work: Work
    keys: HeldKeys


JobMethod = Callable[["Jobs", Message], Awaitable[StageEvent | None]]
"""The method of `Jobs` that a row of the stage table names."""


class Jobs:
    """The five jobs that follow `record`, over one process's memory."""

    def __init__(
        self,
        store: EventStore,
        chunk_memory: ChunkMemory,
        keys: KeyStore,
        blobs: Blobs,
        threads: Threads,
        meter: Meter = NO_METER,
    ) -> None:
        self._jet, self._directory, self._disk = store.jet, store.directory, threads.disk
        self._chunk_memory, self._keys, self._blobs = chunk_memory, keys, blobs
        self._recompute = Recompute(store.recordings, threads, meter)

    async def do(self, job: JobMethod, message: Message) -> StageEvent | None:
        """Do one stage's job. None also if its chunk was settled meanwhile and the source is purged."""
        try:
            return await job(self, message)
        except RefusedByState:
            claim = ChunkEvent.model_validate_json(message.data)
            await self._directory.caught_up()
            session = await self._directory.find(claim.session)
            if session is None or not session.is_settled(claim.index):
                raise
            self._chunk_memory.finish(claim.uid, claim.index)
            return None

    # one job a stage

    async def await_credit(self, message: Message) -> None:
        """Wait until the chunk's bytes fit into memory; the time of job `chunk` begins after that."""
        event = _recorded_or_redriven(message)
        if event is None:
            return
        try:
            async with self._claim(event, message.seq) as claim:
                if claim is None:
                    return
                work, slow = claim.work, is_slow(claim.context.settings)
        except RefusedByState:
            return  # destroyed meanwhile; the job finds the same
        # The key is released during this wait, the chunk's memory is not.
        work.jobs += 1
        try:
            await self._chunk_memory.take_credit(work, slow=slow)
        finally:
            work.jobs -= 1

    async def chunk(self, message: Message) -> StageEvent | None:
        event = _recorded_or_redriven(message)
        if event is None:
            return None
        async with self._claim(event, message.seq) as claim:
            if claim is None:
                return None
            run, context, work, _ = claim
            made, work.plain = await self._recompute.plain(run, context, self._chunk_memory.start(work))
            return made

    async def compress(self, message: Message) -> StageEvent | None:
        async with self._claim(_expect(read_chunk_event(message.data), Chunked)) as claim:
            return (await self._payload(claim))[0] if claim else None

    async def encrypt(self, message: Message) -> StageEvent | None:
        async with self._claim(_expect(read_chunk_event(message.data), Compressed)) as claim:
            return (await self._sealed(claim))[0] if claim else None

    async def merkle(self, message: Message) -> StageEvent | None:
        event = _expect(read_chunk_event(message.data), Encrypted)
        async with self._claim(event) as claim:
            return merkle(event, claim.context) if claim else None

    async def store(self, message: Message) -> StageEvent | None:
        event = _expect(read_chunk_event(message.data), Proven)
        async with self._claim(event) as claim:
            if claim is None:
                return None
            _, sealed = await self._sealed(claim)
            await self._keys.check(claim.keys)
            name = stored_chunk(event.uid, event.index)
            loop = asyncio.get_running_loop()
            made = await loop.run_in_executor(self._disk, self._store, name, sealed, event, claim.context)
            try:
                await self._keys.check(claim.keys)
            except RefusedByState:
                # The session was destroyed; its folder may have been emptied before this file was there.
                await loop.run_in_executor(self._disk, self._blobs.remove, name)
                raise
            return made

    def lane(self, message: Message) -> Lane:
        """The host of a message's session, and whether the session's codec is slow."""
        session_id = subjects.session_of(message.subject)
        session = self._directory.get(session_id)
        if session is None or session.created is None:
            return Lane(session_id, slow=False)
        return Lane(session.created.host, is_slow(session.created.settings))

    def touch(self, message: Message) -> None:
        """A message waits here for its turn: its chunk's memory is not idle."""
        with suppress(ValidationError):
            claim = ChunkEvent.model_validate_json(message.data)
            self._chunk_memory.find(claim.uid, claim.index)

    def put_back(self, message: Message) -> None:
        """A chunk waits for an outage to end: other chunks of its host do not wait for it."""
        with suppress(ValidationError):
            claim = ChunkEvent.model_validate_json(message.data)
            self._chunk_memory.put_back(claim.uid, claim.index)

    def forget(self, message: Message) -> None:
        """A chunk is stored or dead: return its memory and its credit."""
        with suppress(ValidationError):
            claim = ChunkEvent.model_validate_json(message.data)
            self._chunk_memory.finish(claim.uid, claim.index)

    def _store(self, name: str, sealed: Buffer, event: Proven, context: Context) -> Stored:
        """Put, read back, check; in a thread. After a crash the next try finds the same file or none."""
        self._blobs.put(name, sealed)
        read_back = self._blobs.content(name)
        if read_back is None:
            raise _vanished(name)
        return store(event, read_back, context) or self._keep(name, event, context)

    def _keep(self, name: str, event: Proven, context: Context) -> Stored:
        """Check the other bytes that were in the store already."""
        read_back = self._blobs.read(name)
        if read_back is None:
            raise _vanished(name)
        stored = keep(event.run, read_back, context)
        if stored is None:
            kept = self._blobs.quarantine(name)
            raise EvidenceFalse(
                f"chunk {name}: the store held other bytes, now quarantine/{kept}",
                code="store.false",
                place=name,
            )
        log.warning("chunk_kept", session=event.session, index=event.index, build="other")
        return stored

    # claims, and bytes from memory or made again

    @asynccontextmanager
    async def _claim(self, event: ChunkEvent, sequence: int = 0) -> AsyncIterator[Claim | None]:
        """A claim with its chunk's memory, which is not evicted meanwhile; None: the claim is obsolete.

        sequence: the stream sequence of a `recorded` event; all other events name it.
        """
        session = await self._live(event)
        held = None if session is None else await self._hold(session)
        if session is None or session.created is None or held is None:
            self._chunk_memory.finish(event.uid, event.index)
            yield None
            return
        try:
            sequence = event.recorded if isinstance(event, StageEvent) else sequence
            work = self._chunk_memory.find(event.uid, event.index)
            if work is None or (isinstance(event, Recorded) and work.recorded != event):
                recorded = event if isinstance(event, Recorded) else await self._recorded(event, sequence)
                work = self._chunk_memory.work(recorded)
            work.jobs += 1
            try:
                context = Context(work.recorded, sequence, session.created.settings, held.keys)
                yield Claim(event.run, context, work, held)
                await self._keys.check(held)
            finally:
                work.jobs -= 1
        finally:
            self._keys.release(held)

    async def _hold(self, session: Session) -> HeldKeys | None:
        """The session's keys, until released. A missing master key is an outage, not the chunk's fault."""
        try:
            return await self._keys.hold(session.uid, session.dek_id)
        except Denied as error:
            raise Unavailable(error.message, code=error.code, hint=error.hint) from error

    async def _live(self, event: ChunkEvent) -> Session | None:
        """The event's session; None: the chunk is settled. Raises Rejected (chunk.session)."""
        session = self._directory.get(event.session)
        if session is None or session.created is None:
            session = await self._directory.find(event.session)
        if session is None or session.created is None or session.uid != event.uid:
            raise Rejected(f"no session {event.session} with this uid", code="chunk.session")
        return None if session.is_settled(event.index) else session

    async def _recorded(self, event: ChunkEvent, sequence: int) -> Recorded:
        message = await self._jet.get(subjects.CHUNKS, sequence)
        recorded = read_recorded(message.data) if message else None
        if not isinstance(recorded, Recorded) or (recorded.uid, recorded.index) != (event.uid, event.index):
            raise Rejected(
                f"event {sequence} does not record chunk {event.index} of {event.session}", code="chunk.claim"
            )
        return recorded

    async def _payload(self, claim: Claim) -> tuple[Compressed, Buffer]:
        run, context, work, _ = claim
        if work.payload is None:
            work.payload = await self._recompute.payload(run, context, work.plain)
            work.plain = None
        event, payload = work.payload
        return event.model_copy(update={"run": run}), payload

    async def _sealed(self, claim: Claim) -> tuple[Encrypted, Buffer]:
        run, context, work, _ = claim
        if work.sealed is None:
            work.sealed = await self._recompute.sealed(run, context, await self._payload(claim))
            work.payload = None
        event, sealed = work.sealed
        return event.model_copy(update={"run": run}), sealed


def _recorded_or_redriven(message: Message) -> ChunkEvent | None:
    """The event of a chunk that begins here; None: the message tells how its recording ended."""
    event = read_chunk_event(message.data)
    return None if isinstance(event, Ended) else _expect(event, ChunkEvent)


def _vanished(name: str) -> Unavailable:
    return Unavailable(f"chunk {name} vanished while it was stored", code="store.vanished", place=name)


def _expect(event: object, kind: type[E]) -> E:
    if not isinstance(event, kind):
        raise Rejected(f"{type(event).__name__} where {kind.__name__} belongs", code="event.unexpected")
    return event
