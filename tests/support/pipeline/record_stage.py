"""The stage `record` alone over a real server, and the pure fold that it must agree with; for tests.

1. Sessions are brought to ACTIVE in the log itself: no conductor, no keys, no other stage.
2. `folded` is what the same fragments make in memory: whatever happens on the way, the events are these.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

from handlers.stages.record.admit import admit
from handlers.stages.record.fold import Fold
from handlers.stages.record.pieces import FoldedFragment, Identity
from infra.jetstream import Jet, Message
from schemas import subjects
from schemas.events import commands
from schemas.events.chunk import Dead, Ended, Recorded
from schemas.events.upcast import read_recorded
from schemas.format.fragment import Fragment
from schemas.ports.metrics import NO_METER, Meter
from streams.event_store import topology
from streams.event_store.event_store import EventStore
from streams.event_store.recordings import Recordings
from streams.event_store.session_directory import SessionDirectory
from streams.event_store.session_log import SessionLog
from streams.pipeline.chunk_memory import ChunkMemory
from streams.pipeline.record.ingest import Ingest
from streams.pipeline.record.recording import Recording
from streams.pipeline.record.shared import Shared
from streams.pipeline.runner import Limits
from tests.support.machine.waiting import PATIENCE_S, until
from tests.support.pipeline.prepared import HOST, HOST_PUBLIC, START_US, Prepared, Step

LIMITS = Limits(workers=2, slots=64, timeout_s=30, retries=5, memory_bytes=1 << 30)

MEMORY_BYTES = 64 << 20
STORAGE_BYTES = 2 << 30

TWO_CHUNKS: list[Step] = [("data", 3000), ("pause", 0), ("data", 2000), ("data", 1000)]
"""Seven fragments: part, data, pause; resume, data, data, final."""
FOLLOWED, CAUGHT_UP = MOMENTS = ("while it is followed", "while it catches up")

Events = list[Recorded | Ended]


@dataclass
class Stage:
    """What runs."""

    store: EventStore
    chunk_memory: ChunkMemory
    ingest: Ingest

    def followed(self, prepared: Prepared) -> bool:
        """Whether the session is known and has caught up: what comes now is not read again."""
        found = self.ingest._recordings.get(prepared.session)
        return found is not None and found._catching is None


def identity(prepared: Prepared) -> Identity:
    return Identity(prepared.session, prepared.uid, HOST, prepared.settings, prepared.genesis)


async def begin(jet: Jet, *sessions: Prepared) -> None:
    """Declare the streams, and bring sessions to ACTIVE."""
    await topology.declare(jet, STORAGE_BYTES)
    log = SessionLog(jet)
    for prepared in sessions:
        head = {"session": prepared.session, "at_us": START_US, "who": "tester"}
        keys = prepared.keys
        known = await log.execute(prepared.create())
        known = await log.execute(commands.Start.model_validate({**head, "cause": "start"}), known)
        made = {"cause": "key", "dek_id": keys.dek_id, "intake": keys.intake_public}
        await log.execute(commands.StartComplete.model_validate({**head, **made}), known)


async def send(jet: Jet, prepared: Prepared, order: Sequence[int] | None = None) -> int:
    """Send fragments by number; the stream sequence of the last one."""
    numbers = order if order is not None else range(len(prepared.fragments))
    chosen = [prepared.fragments[n] for n in numbers]
    acks = await asyncio.gather(*(jet.publish(prepared.subject, one, timeout_s=PATIENCE_S) for one in chosen))
    seqs = [ack.seq for ack in acks]
    assert seqs == sorted(seqs)
    return max(seqs, default=0)


@asynccontextmanager
async def record_stage(
    jet: Jet, memory_bytes: int = MEMORY_BYTES, meter: Meter = NO_METER
) -> AsyncIterator[Stage]:
    """The stage over all partitions; what ended it before is raised."""
    store = EventStore.over(await Recordings.open(jet), SessionDirectory(jet))
    chunk_memory = ChunkMemory(memory_bytes, memory_bytes)
    with ThreadPoolExecutor(2) as threads:
        ingest = Ingest(
            Shared(store.recordings, chunk_memory, threads, list, meter),
            store.directory,
            range(subjects.PARTITIONS),
            LIMITS,
        )
        services = [asyncio.create_task(service.run()) for service in (store.directory, ingest)]
        try:
            yield Stage(store, chunk_memory, ingest)
        finally:
            died = [service for service in services if service.done()]
            for service in services:
                service.cancel()
            await asyncio.gather(*services, return_exceptions=True)
        for service in died:
            service.result()


@asynccontextmanager
async def recording(jet: Jet, prepared: Prepared) -> AsyncIterator[Recording]:
    """One session's recording without a reader: the test says what is followed, and when."""
    with ThreadPoolExecutor(2) as threads:
        shared = Shared(await Recordings.open(jet), ChunkMemory(MEMORY_BYTES, MEMORY_BYTES), threads, list)
        side_tasks = asyncio.create_task(shared.side_tasks.run())
        one = Recording(shared, identity(prepared), HOST_PUBLIC)
        try:
            yield one
        finally:
            await one.close()
            side_tasks.cancel()
            await asyncio.gather(side_tasks, return_exceptions=True)


async def fragments(jet: Jet, prepared: Prepared) -> list[FoldedFragment]:
    """What the stream holds of the session's own fragments, without what is none."""
    messages = [m async for m in (await Recordings.open(jet)).read_all(prepared.subject)]
    found = [(message.seq, admit(message.data, HOST_PUBLIC)) for message in messages]
    return [FoldedFragment.of(seq, one) for seq, one in found if isinstance(one, Fragment)]


async def folded(jet: Jet, prepared: Prepared) -> Events:
    """The events that the pure fold makes of the stream as it is now."""
    fold = Fold(identity(prepared))
    outputs = [output for piece in await fragments(jet, prepared) for output in fold.take(piece)]
    return [output for output in outputs if isinstance(output, Recorded | Ended)]


async def events(jet: Jet, prepared: Prepared) -> Events:
    """The events that stand in the log now."""
    subject = subjects.chunk(subjects.RECORDED, prepared.session)
    return [read_recorded(m.data) async for m in jet.read_all(subjects.CHUNKS, subject)]


async def ended(jet: Jet, prepared: Prepared) -> Events:
    """All events, once the recording has ended."""
    follower = jet.follow(subjects.CHUNKS, [subjects.chunk(subjects.RECORDED, prepared.session)])
    try:
        async with asyncio.timeout(PATIENCE_S):
            async for item in follower:
                if isinstance(item, Message) and isinstance(read_recorded(item.data), Ended):
                    break
    finally:
        await follower.close()
    return await events(jet, prepared)


async def recorded(jet: Jet, session: str, wanted: int) -> None:
    """Return when the session has so many events."""
    follower = jet.follow(subjects.CHUNKS, [subjects.chunk(subjects.RECORDED, session)])
    try:
        async with asyncio.timeout(PATIENCE_S):
            async for item in follower:
                wanted -= isinstance(item, Message)
                if wanted <= 0:
                    return
    finally:
        await follower.close()


async def dead(jet: Jet, prepared: Prepared, wanted: int = 0) -> list[Dead]:
    """What is kept of the session's refused fragments, once there are so many."""
    subject = subjects.dead("record", prepared.session)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            letters = [m.data async for m in jet.read_all(subjects.DEAD, subject)]
            if len(letters) >= wanted:
                return [Dead.model_validate_json(letter) for letter in letters]
            await asyncio.sleep(0.01)


async def known(stage: Stage, *sessions: Prepared) -> None:
    """Return when the sessions are followed: what they send from now on is not read again."""
    await until(lambda: all(stage.followed(prepared) for prepared in sessions))


@asynccontextmanager
async def meeting(
    jet: Jet, prepared: Prepared, moment: str, host: Callable[[], Awaitable[object]]
) -> AsyncIterator[None]:
    """The stage, which finds what the host sent before it began, or follows the session when it is sent."""
    if moment == CAUGHT_UP:
        await host()
    async with record_stage(jet) as stage:
        if moment == FOLLOWED:
            await known(stage, prepared)
            await host()
        yield


def count(found: Events) -> int:
    """Fragments inside chunks."""
    return sum(len(event.stream) for event in found if isinstance(event, Recorded))
