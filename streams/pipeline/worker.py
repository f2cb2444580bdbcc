"""Runs one worker process: the six stages over the partitions of its group, and the group's consumers.

1. The stage runners start before `record`: the events of a catch-up find their readers.
2. Every process here can be killed at any moment: all state is in the streams, the store and the log.
3. Below its floor, a durable consumer has done everything that its filters name; everything above the floor
   is delivered again to its next reader.
4. A new consumer starts at the lowest floor among its filters. If several consumers cover a filter, take the
   highest floor; if none does, start at 1. Doubled messages may follow, none is skipped.
5. A consumer of another number of groups is deleted when ours cover all its filters and it has no reader.
6. Any number of workers may do so at once, and die at any line: rule 4 makes a deleted consumer anew.
7. A consumer that is past the end of the stream shows that the server has dropped messages behind a damaged
   one. Results may be among them, so each stage begins again at 1. No stored byte changes by that.
"""

import asyncio
from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial

from pydantic import ValidationError

from handlers.stages.record.admit import EndKeys
from schemas import subjects
from schemas.config.logs import logger
from schemas.events.chunk import ChunkEvent
from schemas.ports import Blobs, Jet, Overflow
from schemas.ports.messages import ConsumerInfo, ConsumerSpec, Message
from schemas.ports.metrics import NO_METER, Meter
from streams.event_store.event_store import EventStore
from streams.keys.keystore import KeyStore
from streams.pipeline.chunk_memory import ChunkMemory
from streams.pipeline.jobs import Jobs
from streams.pipeline.measurements import ChunkTimes, StageMeasurements, measure_memory
from streams.pipeline.record.ingest import Ingest
from streams.pipeline.record.shared import Shared
from streams.pipeline.runner import ACK_WAIT_S, BoundStage, Limits, Runner
from streams.pipeline.stages import STAGES, Stage, consumer, partitions
from streams.pipeline.tries import Tries
from streams.scheduling.retry import retry
from streams.scheduling.threads import Threads

EVICT_S = 5.0

log = logger("lucid.worker")


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """The parts of a worker."""

    store: EventStore
    keys: KeyStore
    blobs: Blobs
    overflow: Overflow
    end_keys: EndKeys
    """Raw public keys that may sign an `end` fragment."""
    limits: Mapping[str, Limits]
    """By stage verb; `record`'s memory is the limit of open and waiting chunks, `chunk`'s the credit."""
    meter: Meter = NO_METER


async def work(parts: WorkerParts, stop: asyncio.Event, group: int = 0, groups: int = 1) -> None:
    """Run the stages of one worker group until `stop` is set; then finish the jobs that run."""
    store, limits, owned = parts.store, parts.limits, partitions(group, groups)
    chunk_memory = ChunkMemory(limits["record"].memory_bytes, limits["chunk"].memory_bytes, parts.overflow)
    with Threads() as threads:
        measure_memory(parts.meter, chunk_memory)
        jobs = Jobs(store, chunk_memory, parts.keys, parts.blobs, threads, parts.meter)
        tries, times = Tries(), ChunkTimes(parts.meter, chunk_memory)
        made = await _runners(parts, jobs, times, tries, group, groups)
        runners = [asyncio.create_task(runner.run(stop), name=runner.verb) for runner in made]
        record = Ingest(
            Shared(store.recordings, chunk_memory, threads.checks, parts.end_keys, parts.meter),
            store.directory,
            owned,
            limits["record"],
        )
        _measure(parts, made, len(owned))
        services = [
            asyncio.create_task(record.run(), name="record"),
            asyncio.create_task(_watch_stored(store.jet, chunk_memory, owned), name="stored"),
            asyncio.create_task(_evict(chunk_memory), name="evict"),
            asyncio.create_task(_tell_tries(store.jet, tries, owned), name="tries"),
        ]
        log.info("worker_started", group=group, groups=groups, partitions=len(owned))
        await _until_stopped(stop, services, runners)


async def _runners(
    parts: WorkerParts, jobs: Jobs, times: ChunkTimes, tries: Tries, group: int, groups: int
) -> list[Runner]:
    jet, runners = parts.store.jet, []

    def stored(message: Message) -> None:
        times.stored(message)
        jobs.forget(message)

    def failed(message: Message) -> None:
        times.forget(message)
        jobs.put_back(message)

    def dead(message: Message) -> None:
        times.forget(message)
        jobs.forget(message)

    for stage in STAGES:
        if stage.job is None:
            continue
        limits = parts.limits[stage.verb]
        upsert = partial(join, jet, stage, group, groups)
        reader = jet.pull(subjects.CHUNKS, await upsert(), batch=limits.slots, upsert=upsert)
        job, is_last = partial(jobs.do, stage.job), stage is STAGES[-1]
        bound = BoundStage(
            stage.verb,
            stage.makes,
            times.noting(job) if is_last else job,
            wait=partial(stage.waits, jobs) if stage.waits else None,
            lane=jobs.lane,
            on_extended=jobs.touch,
            on_failed=failed,
            on_done=stored if is_last else None,
            on_dead=dead,
        )
        measurements = StageMeasurements(parts.meter, stage.verb)
        runners.append(Runner(jet, reader, bound, limits, measurements, tries))
    return runners


def _measure(parts: WorkerParts, runners: list[Runner], partitions: int) -> None:
    """Show the present state of the stages."""
    rows = partial(parts.meter.rows, labels=("stage",))
    rows("lucid_stage_in_flight", "Messages taken, without an outcome yet.",
         read=lambda: {(one.verb,): one.in_flight for one in runners})  # fmt: skip
    rows("lucid_stage_busy_workers", "Workers of a stage that are busy.",
         read=lambda: {(one.verb,): one.busy_workers for one in runners})  # fmt: skip
    rows("lucid_stage_slots", "Messages that a stage may take.",
         read=lambda: {(verb,): limits.slots for verb, limits in parts.limits.items()})  # fmt: skip
    rows("lucid_stage_workers", "Workers of a stage.",
         read=lambda: {(verb,): limits.workers for verb, limits in parts.limits.items()})  # fmt: skip
    parts.meter.value("lucid_worker_partitions", "Partitions of a worker.", lambda: partitions)


async def _until_stopped(
    stop: asyncio.Event, services: list[asyncio.Task[None]], runners: list[asyncio.Task[None]]
) -> None:
    """Return when `stop` is set and the runners have finished. Raises the error that ended one of them."""
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait({stopped, *services, *runners}, return_when=asyncio.FIRST_COMPLETED)
    over = [task for task in (*services, *runners) if task.done()]
    stop.set()
    for task in services:
        task.cancel()
    await asyncio.gather(stopped, *services, *runners, return_exceptions=True)
    for task in over:
        task.result()


async def _watch_stored(jet: Jet, chunk_memory: ChunkMemory, owned: Collection[int]) -> None:
    """Forget chunks that another worker has stored, of our group or of another number of groups."""
    start = (await retry(lambda: jet.info(subjects.CHUNKS))).last_seq + 1
    filters = [subjects.chunk_filter(subjects.STORED, p) for p in owned]
    async for item in jet.follow(subjects.CHUNKS, filters, start):
        if isinstance(item, Message):
            with suppress(ValidationError):
                event = ChunkEvent.model_validate_json(item.data)
                chunk_memory.stored(event.uid, event.index)


async def _evict(chunk_memory: ChunkMemory) -> None:
    while True:
        await asyncio.sleep(EVICT_S)
        chunk_memory.evict_idle()


async def _tell_tries(jet: Jet, tries: Tries, owned: Collection[int]) -> None:
    """Answer how often chunks were tried (streams/control/where.py), until cancelled."""
    async with AsyncExitStack() as serving:
        for p in owned:
            await serving.enter_async_context(jet.serve(subjects.tries(p), partial(tries.answer, p)))
        await asyncio.Event().wait()


async def join(jet: Jet, stage: Stage, group: int, groups: int) -> str:
    """Create or change the consumer of one stage and group, and return its name."""
    wanted = consumer(stage, group, groups, ACK_WAIT_S)
    all_known = await jet.consumers(subjects.CHUNKS)
    known = [one for one in all_known if one.name.startswith(f"{stage.verb}-")]
    done, end = _done(wanted, known), (await jet.info(subjects.CHUNKS)).last_seq
    if any(one.delivered > end for one in all_known):
        log.error("stream_cut", stream=subjects.CHUNKS, last_seq=end, again=wanted.name)
        await jet.delete_consumer(subjects.CHUNKS, wanted.name)  # killed here: rule 4 begins at 1, too
        done = 0
    await jet.upsert_consumer(subjects.CHUNKS, replace(wanted, start_seq=done + 1))
    ours = {consumer(stage, number, groups, ACK_WAIT_S).name for number in range(groups)}
    covered = set(wanted.filters).union(*(one.filters for one in known if one.name in ours))
    for one in known:
        if one.name not in ours and one.filters <= covered and not one.is_read:
            await jet.delete_consumer(subjects.CHUNKS, one.name)
            log.info("consumer_retired", name=one.name, floor=one.floor)
    return wanted.name


def _done(wanted: ConsumerSpec, known: list[ConsumerInfo]) -> int:
    """The stream sequence up to which every message of the consumer's filters is done."""
    return min(max((one.floor for one in known if name in one.filters), default=0) for name in wanted.filters)
