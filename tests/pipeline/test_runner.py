"""The one loop of the stages against a real server: slow, failing, refused and interrupted jobs."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from handlers.crypto.keys import SessionKeys
from infra.blobs.disk import DiskBlobs
from infra.jetstream import Jet, Message
from infra.jetstream.consumer import PullConsumer
from schemas import subjects
from schemas.config.backoff import Backoff
from schemas.errors import Conflict, LucidError, NoSpace, Rejected, Unavailable
from schemas.events.chunk import Chunked, Compressed, Dead, Redriven, StageEvent
from schemas.events.headers import MOST_BYTES, TOO_LONG
from streams.event_store import dead_letters, topology
from streams.pipeline import recompute, runner
from streams.pipeline.jobs import Jobs
from streams.pipeline.runner import BoundStage, Job, Limits, Runner
from streams.pipeline.stages import STAGES, consumer
from streams.scheduling.fair_slots import FairSlots
from streams.scheduling.threads import Threads
from tests.support.machine.waiting import PATIENCE_S, until
from tests.support.pipeline.prepared import Prepared
from tests.support.pipeline.record_stage import STORAGE_BYTES, begin, ended, record_stage, send

LIMITS = Limits(workers=2, slots=4, timeout_s=20, retries=2, memory_bytes=64 << 20)
STAGE = next(stage for stage in STAGES if stage.verb == "compress")
SESSION = "demo-01"


def asked(index: int, run: int = 0) -> Chunked:
    return Chunked(session=SESSION, uid=bytes(16), run=run, index=index, recorded=1, plain=1)


def made(message: Message) -> Compressed:
    """What the stage makes of its input here."""
    event = Chunked.model_validate_json(message.data)
    members = {"codec": 0, "build": "test", "payload": 1}
    return Compressed.model_validate({**event.model_dump(exclude={"type"}), **members})


@dataclass
class Running:
    """A stage with a job of the test's own."""

    jet: Jet
    runner: Runner
    stop: asyncio.Event
    task: "asyncio.Task[None]"
    forgotten: list[int]

    async def ask(self, count: int = 1, run: int = 0) -> list[int]:
        """Ask for so many chunks; the stream sequences of the requests."""
        subject = subjects.chunk(subjects.CHUNKED, SESSION)
        bodies = [asked(index, run).model_dump_json().encode() for index in range(count)]
        return [(await self.jet.publish(subject, body)).seq for body in bodies]

    async def results(self) -> list[Compressed]:
        subject = subjects.chunk(subjects.COMPRESSED, SESSION)
        read = self.jet.read_all(subjects.CHUNKS, subject)
        return [Compressed.model_validate_json(message.data) async for message in read]

    async def dead(self) -> list[Dead]:
        read = self.jet.read_all(subjects.DEAD, subjects.dead(STAGE.verb, SESSION))
        return [Dead.model_validate_json(message.data) async for message in read]

    async def settled(self, up_to: int) -> None:
        """Return when the server has every message up to this one acknowledged."""
        name = consumer(STAGE, 0, 1, runner.ACK_WAIT_S).name
        async with asyncio.timeout(PATIENCE_S):
            while True:
                (floor,) = [
                    one.floor for one in await self.jet.consumers(subjects.CHUNKS) if one.name == name
                ]
                if floor >= up_to:
                    return
                await asyncio.sleep(0.01)


@asynccontextmanager
async def running(jet: Jet, job: Job, limits: Limits = LIMITS, **more: Any) -> AsyncIterator[Running]:
    await topology.declare(jet, STORAGE_BYTES)
    spec = consumer(STAGE, 0, 1, runner.ACK_WAIT_S)
    await jet.upsert_consumer(subjects.CHUNKS, spec)
    reader = jet.pull(subjects.CHUNKS, spec.name, batch=limits.slots)
    forgotten: list[int] = []
    forget = {"on_done": lambda m: forgotten.append(m.seq), "on_dead": lambda m: forgotten.append(-m.seq)}
    loop = Runner(jet, reader, BoundStage(STAGE.verb, STAGE.makes, job, **forget, **more), limits)
    stop = asyncio.Event()
    task = asyncio.create_task(loop.run(stop))
    try:
        yield Running(jet, loop, stop, task, forgotten)
    finally:
        stop.set()
        await task


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between tries are there for outages, not for tests; what is slow here is not given up."""
    monkeypatch.setattr(runner, "JOB", Backoff(0.02, 0.05, jitter=0.5))
    monkeypatch.setattr(runner, "ACK_WAIT_S", 60.0)


async def test_a_job_is_done_published_and_acknowledged_once(jet: Jet) -> None:
    """Breaks: chunks are made twice, or never."""
    calls: list[int] = []

    async def job(message: Message) -> StageEvent:
        calls.append(message.seq)
        return made(message)

    async with running(jet, job) as stage:
        seqs = await stage.ask(20)
        await stage.settled(seqs[-1])
        assert sorted(calls) == seqs
        assert sorted(event.index for event in await stage.results()) == list(range(20))
        await until(lambda: len(stage.forgotten) == 20)
        assert sorted(stage.forgotten) == seqs


async def test_a_lost_ack_brings_the_message_again_and_doubles_nothing(
    jet: Jet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: an ack that a broken connection took leaves a message that nobody does, or two results."""
    monkeypatch.setattr(runner, "ACK_WAIT_S", 0.3)
    calls: Counter[int] = Counter()
    lost: list[int] = []
    send = PullConsumer.ack

    async def losing(reader: PullConsumer, message: Message) -> None:
        if message.seq not in lost:
            lost.append(message.seq)
        else:
            await send(reader, message)

    monkeypatch.setattr(PullConsumer, "ack", losing)

    async def job(message: Message) -> StageEvent:
        calls[message.seq] += 1
        return made(message)

    async with running(jet, job) as stage:
        seqs = await stage.ask(6)
        await stage.settled(seqs[-1])
        assert sorted(lost) == seqs
        assert calls == dict.fromkeys(seqs, 2)
        assert sorted(event.index for event in await stage.results()) == list(range(6))
        assert stage.runner.failed == 0


async def test_what_was_done_before_a_stop_is_done_for_the_next_worker(jet: Jet) -> None:
    """Breaks: each restart makes the last chunks again, for their acks were never sent."""
    calls: list[int] = []

    async def job(message: Message) -> StageEvent:
        calls.append(message.seq)
        return made(message)

    async with running(jet, job) as stage:
        seqs = await stage.ask(8)
        await until(lambda: len(stage.forgotten) == 8)
    await stage.settled(seqs[-1])
    assert sorted(calls) == seqs


async def test_a_slow_job_is_never_given_up_and_runs_once(jet: Jet) -> None:
    """Breaks: a machine under load dead-letters good chunks, or makes each of them again and again."""
    calls, may_end = 0, asyncio.Event()

    async def job(message: Message) -> StageEvent:
        nonlocal calls
        calls += 1
        await may_end.wait()
        return made(message)

    async with running(jet, job, LIMITS._replace(timeout_s=0.1)) as stage:
        seqs = await stage.ask()
        await until(lambda: stage.runner.failed > LIMITS.retries)
        may_end.set()
        await stage.settled(seqs[-1])
        assert calls == 1
        assert [event.index for event in await stage.results()] == [0]
        assert await stage.dead() == []
        await until(lambda: stage.forgotten == seqs)


async def test_jobs_that_were_slow_together_do_not_come_back_together(
    jet: Jet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: after a slow disk all its chunks return at one moment, and make the disk slow again."""
    may_end, delays_s = asyncio.Event(), list[float]()
    nak = PullConsumer.nak

    async def noted(reader: PullConsumer, message: Message, delay_s: float = 0.0) -> None:
        delays_s.append(delay_s)
        await nak(reader, message, delay_s)

    async def job(message: Message) -> StageEvent:
        await may_end.wait()
        return made(message)

    monkeypatch.setattr(PullConsumer, "nak", noted)
    async with running(jet, job, LIMITS._replace(timeout_s=0.2)) as stage:
        seqs = await stage.ask(4)
        await until(lambda: len(delays_s) >= 4)
        may_end.set()
        await stage.settled(seqs[-1])
        assert len(set(delays_s)) == len(delays_s)
        assert all(0.1 <= delay_s <= 0.2 for delay_s in delays_s)


async def test_a_job_that_ends_as_its_time_runs_out_has_ended(jet: Jet) -> None:
    """Breaks: its result is thrown away, a retry is spent, and a loaded machine dead-letters a good chunk."""

    async def job(message: Message) -> StageEvent:
        asyncio.get_running_loop().call_later(0.02, time.sleep, 0.8)  # both timers are due when it returns
        await asyncio.sleep(0.03)
        return made(message)

    async with running(jet, job, LIMITS._replace(timeout_s=0.6, retries=0)) as stage:
        seqs = await stage.ask()
        await stage.settled(seqs[-1])
        assert stage.runner.failed == 0
        assert await stage.dead() == []


async def test_a_job_that_hangs_takes_one_slot_for_itself(jet: Jet) -> None:
    """Breaks: one chunk that hangs, delivered again and again, stops the stage for all."""
    may_go_on = asyncio.Event()

    async def job(message: Message) -> StageEvent:
        if message.seq == 1:
            await may_go_on.wait()
        return made(message)

    async with running(jet, job, LIMITS._replace(timeout_s=0.05, slots=2)) as stage:
        await stage.ask()
        await until(lambda: stage.runner.failed > 5)
        seqs = await stage.ask(6)
        await until(lambda: sorted(stage.forgotten) == seqs)
        may_go_on.set()
        await stage.settled(seqs[-1])


async def test_what_waits_for_a_slot_is_not_delivered_twice(
    jet: Jet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a codec that takes seconds does every chunk several times, and is slower still."""
    monkeypatch.setattr(runner, "ACK_WAIT_S", 10.0)
    calls: Counter[int] = Counter()

    async def job(message: Message) -> StageEvent:
        calls[message.seq] += 1
        await asyncio.sleep(1.5)
        return made(message)

    async with running(jet, job, LIMITS._replace(workers=1, slots=6)) as stage:
        seqs = await stage.ask(8)
        await stage.settled(seqs[-1])
        assert calls == dict.fromkeys(seqs, 1)


async def test_a_timeout_of_the_jobs_own_is_a_failure(jet: Jet) -> None:
    """Breaks: a job whose disk always times out is tried for ever, and nobody learns of it."""

    async def job(message: Message) -> StageEvent:
        raise TimeoutError("the disk does not answer")

    async with running(jet, job) as stage:
        seqs = await stage.ask()
        await stage.settled(seqs[-1])
        (letter,) = await stage.dead()
        assert (letter.code, letter.message) == ("job.failed", "the disk does not answer")


@pytest.mark.parametrize("outage", [Unavailable, NoSpace, Conflict])
async def test_an_outage_spends_no_retry(jet: Jet, outage: type[LucidError]) -> None:
    """Breaks: a broker that is away for a minute costs every chunk that was under way."""
    calls = 0

    async def job(message: Message) -> StageEvent:
        nonlocal calls
        calls += 1
        if calls <= 6:
            raise outage("away", code="test.away")
        if calls <= 8:
            raise OSError("and then two failures of its own, which it may have")
        return made(message)

    async with running(jet, job) as stage:
        seqs = await stage.ask()
        await stage.settled(seqs[-1])
        assert calls == 9
        assert [event.index for event in await stage.results()] == [0]
        assert await stage.dead() == []


@pytest.mark.parametrize(
    ("error", "tries", "code", "said"),
    [
        (OSError("the disk is odd"), LIMITS.retries + 1, "job.failed", "the disk is odd"),
        (KeyError(), LIMITS.retries + 1, "job.failed", "KeyError"),
        (LucidError("odd", code="disk.odd"), LIMITS.retries + 1, "disk.odd", "odd"),
        (Rejected("never", code="chunk.never"), 1, "chunk.never", "never"),
    ],
)
async def test_what_fails_for_good_is_written_down_with_its_code(
    jet: Jet, error: Exception, tries: int, code: str, said: str
) -> None:
    """Breaks: a chunk that cannot be made is tried for ever, or vanishes without a word."""
    calls = 0

    async def job(message: Message) -> StageEvent:
        nonlocal calls
        if Chunked.model_validate_json(message.data).index == 1:
            return made(message)
        calls += 1
        raise error

    async with running(jet, job) as stage:
        seqs = await stage.ask(2)
        await stage.settled(seqs[-1])
        (letter,) = await stage.dead()
        assert (letter.stage, letter.index, letter.run, letter.seq) == (STAGE.verb, 0, 0, seqs[0])
        assert (letter.code, letter.message, calls) == (code, said, tries)
        assert letter.body == asked(0).model_dump_json().encode()
        assert [event.index for event in await stage.results()] == [1], "the next one is done"
        await until(lambda: sorted(stage.forgotten) == [-seqs[0], seqs[1]])


async def test_what_is_no_event_is_written_down_too(jet: Jet) -> None:
    """Breaks: one message that nobody understands is redelivered for ever."""

    async def job(message: Message) -> StageEvent:
        return made(message)  # raises what pydantic raises

    async with running(jet, job) as stage:
        ack = await jet.publish(subjects.chunk(subjects.CHUNKED, SESSION), b"\xff" * (100 << 10))
        await stage.settled(ack.seq)
        (letter,) = await stage.dead()
        assert (letter.index, letter.code, len(letter.body)) == (-1, "job.failed", dead_letters.BODY_BYTES)


async def test_an_event_under_oversized_headers_is_refused_and_ends_no_chunks_way(jet: Jet) -> None:
    """Breaks: a stranger's headers go from stage to stage, or a copy of an event ends the chunk's session."""

    async def job(message: Message) -> StageEvent:
        return made(message)

    async with running(jet, job) as stage:
        subject, body = subjects.chunk(subjects.CHUNKED, SESSION), asked(0).model_dump_json().encode()
        refused = await jet.publish(subject, body, {"traceparent": "x" * MOST_BYTES})
        seqs = await stage.ask()
        await stage.settled(seqs[-1])
        (letter,) = await stage.dead()
        assert (letter.seq, letter.index) == (refused.seq, -1)
        assert (letter.code, letter.message) == ("event.headers", TOO_LONG)
        assert [event.index for event in await stage.results()] == [0]


async def test_stop_ends_in_time_while_every_slot_waits_for_credit(
    jet: Jet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: SIGTERM waits for memory that nobody gives back any more, until it is killed."""
    monkeypatch.setattr(runner, "STOP_S", 0.3)
    monkeypatch.setattr(runner, "ACK_WAIT_S", 10 * PATIENCE_S)
    credit = FairSlots(1)
    await credit.take("host", 1)  # held by a chunk whose later stages have stopped

    async def wait(message: Message) -> None:
        await credit.take("host", 1)

    async def job(message: Message) -> StageEvent:
        return made(message)

    async with running(jet, job, wait=wait) as stage:
        seqs = await stage.ask(LIMITS.slots + 2)
        await until(lambda: credit.waiting == LIMITS.slots)
        stage.stop.set()
        await asyncio.wait_for(stage.task, PATIENCE_S)
    assert (credit.used, credit.waiting) == (1, 0)
    async with running(jet, job) as stage:
        await stage.settled(seqs[-1])  # they were handed back
        assert len(await stage.results()) == LIMITS.slots + 2


async def test_what_is_in_work_is_finished_on_stop(jet: Jet) -> None:
    """Breaks: every restart makes the chunks under way twice."""
    begun = asyncio.Event()

    async def job(message: Message) -> StageEvent:
        begun.set()
        await asyncio.sleep(0.3)
        return made(message)

    async with running(jet, job) as stage:
        seqs = await stage.ask()
        await begun.wait()
    await stage.settled(seqs[-1])
    assert [event.index for event in await stage.results()] == [0]


async def test_each_run_of_a_chunk_is_published(jet: Jet) -> None:
    """Breaks: what is driven again is taken for a double of the first run, and its session never seals."""

    async def job(message: Message) -> StageEvent:
        return made(message)

    async with running(jet, job) as stage:
        await stage.ask(2)
        await stage.ask(2)
        seqs = await stage.ask(2, run=1)
        await stage.settled(seqs[-1])
        assert sorted((event.index, event.run) for event in await stage.results()) == [
            (0, 0),
            (0, 1),
            (1, 0),
            (1, 1),
        ]


@dataclass
class OneKey:
    """Stands where the key store stands."""

    keys: SessionKeys

    async def hold(self, uid: bytes, key_id: bytes = b"") -> "OneKey":
        return self

    def release(self, held: "OneKey") -> None:
        assert held is self

    async def check(self, held: "OneKey") -> None:
        assert held is self


async def test_what_is_in_memory_is_said_under_the_run_that_asks(
    jet: Jet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: as above, for a chunk whose bytes are still in memory; or the bytes are made twice."""
    calls: Counter[str] = Counter()

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*given: Any) -> Any:
            calls[name] += 1
            return call(*given)

        return counting

    for name in ("compress", "encrypt"):
        monkeypatch.setattr(recompute, name, counted(name, getattr(recompute, name)))
    prepared = Prepared(SESSION, 1, [("data", 4000)] * 3)
    await begin(jet, prepared)
    await send(jet, prepared)
    async with record_stage(jet) as stage:
        await ended(jet, prepared)
        subject = subjects.chunk(subjects.RECORDED, SESSION)
        recorded, _ = [m async for m in jet.read_all(subjects.CHUNKS, subject)]
        again = Redriven(session=SESSION, uid=prepared.uid, run=1, index=0, recorded=recorded.seq)
        redriven = Message(
            subjects.chunk(subjects.REDRIVEN, SESSION), again.model_dump_json().encode(), seq=99
        )
        messages = [recorded, redriven]
        with Threads() as threads:
            blobs = DiskBlobs(tmp_path / "chunks")
            keys: Any = OneKey(prepared.keys)
            jobs = Jobs(stage.store, stage.chunk_memory, keys, blobs, threads)
            for step in STAGES[1:]:
                assert step.job is not None
                first, second = [await step.job(jobs, message) for message in messages]
                assert first is not None
                assert second == first.model_copy(update={"run": 1}), step.verb
                assert first.run == 0
                bodies = [event.model_dump_json().encode() for event in (first, second)]
                messages = [Message(subjects.chunk(step.makes, SESSION), body) for body in bodies]
    assert calls == {"compress": 1, "encrypt": 1}
