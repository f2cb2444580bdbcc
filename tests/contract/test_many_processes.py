"""One page over hundreds of processes on a real server, beside answers of strangers."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from prometheus_client.parser import text_string_to_metric_families as read_text

from infra.jetstream import Jet, connect
from infra.nats_server.server import NatsServer
from infra.telemetry.metrics import Meter
from schemas import subjects
from streams.api import processes
from streams.api.metrics import WORKER, Metrics
from streams.api.processes import ANSWER_BYTES_MOST, PROCESSES_MOST
from streams.pipeline.measurements import RecordMeasurements, StageMeasurements
from streams.pipeline.stages import STAGES
from tests.support.machine.waiting import PATIENCE_S

WORKERS = 200
PAGE_BYTES_MOST = 16 << 20


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """All processes share this machine's cores with the tests; every request is a look of its own."""
    monkeypatch.setattr(processes, "WAIT_S", 2.0)
    monkeypatch.setattr(processes, "OLDEST_S", 0.0)


@asynccontextmanager
async def answering(server: NatsServer, *answers: bytes) -> AsyncIterator[None]:
    """Processes that answer so, over one connection."""
    jet = await connect(server.url, name="many", timeout_s=PATIENCE_S)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(jet.close)
        for one in answers:
            await stack.enter_async_context(jet.serve(subjects.METRICS, lambda raw=one: raw))  # type: ignore[misc]
        yield


def worker(host: int) -> bytes:
    """A worker with all the series of its stages."""
    meter = Meter(f"worker@node-{host % 100}")
    RecordMeasurements(meter)
    for stage in STAGES:
        StageMeasurements(meter, stage.verb).began(0.1)
    meter.value(WORKER, "Partitions of a worker.", lambda: 16)
    return meter.sample()


def samples(page: bytes) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in read_text(page.decode())
        for sample in family.samples
    }


def missing(page: dict[tuple[str, ...], float], why: str) -> float:
    return page["lucid_processes_missing", why]


async def until_up(metrics: Metrics, count: int) -> dict[tuple[str, ...], float]:
    """The page, once so many processes are up."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            page, _ = await metrics.text("")
            assert len(page) < PAGE_BYTES_MOST
            found = samples(page)
            if sum(value for (name, *_), value in found.items() if name == "lucid_process_up") == count:
                return found


async def test_the_page_of_two_hundred_workers_is_whole(server: NatsServer, jet: Jet) -> None:
    """Breaks: in a large installation workers vanish from the page, and nobody misses one that hangs."""
    metrics, workers = Metrics(jet, Meter("http")), [worker(number) for number in range(WORKERS)]
    async with answering(server, *workers):
        found = await until_up(metrics, WORKERS + 1)
        assert found["lucid_workers",] == WORKERS
        done = [key for key in found if key[0] == "lucid_stage_chunks_total" and key[2] == "store"]
        names = {f"worker@node-{host}{again}" for host in range(WORKERS // 2) for again in ("", "#2")}
        assert {key[1] for key in done} == names
        assert {value for key, value in found.items() if key[0] == "lucid_processes_missing"} == {0}
    async with answering(server, *workers[:-7]):
        found = await until_up(metrics, WORKERS + 1 - 7)
        down = {key[1] for key, value in found.items() if key[0] == "lucid_process_up" and not value}
        assert down == {f"worker@node-{host}#2" for host in range(93, 100)}
        assert missing(found, "silent") == 7


async def test_answers_of_strangers_take_no_process_off_the_page(server: NatsServer, jet: Jet) -> None:
    """Breaks: one client that answers much, wrongly or without end blinds everybody on call."""
    many = "x" * 200
    family = {
        "name": "lucid_flood",
        "type": "gauge",
        "text": "",
        "samples": [["lucid_flood", {"n": f"{number}{many}"}, 1, None] for number in range(2000)],
    }
    large, huge = ({"process": name, "instance": "1", "families": [family]} for name in ("large", "huge"))
    strangers = (
        json.dumps(large).encode(),
        json.dumps(huge).encode().ljust(ANSWER_BYTES_MOST + 1),
        b'{"process": "cut", "instance": "1", "families": [' + b"[" * 100_000,
        b"garbage",
        b"",
    )
    without_end = [b'{"process":"x-%d","instance":"1","families":[]}' % number for number in range(600)]
    metrics, workers = Metrics(jet, Meter("http")), [worker(number) for number in range(8)]
    async with answering(server, *workers):
        before = await until_up(metrics, 9)
        kept = {key for key in before if not key[0].startswith("process_")}
        async with answering(server, *strangers):
            found = await until_up(metrics, 12)
            assert found.keys() >= kept
            assert (missing(found, "too_large"), missing(found, "unreadable")) == (1, 3)
        async with answering(server, *without_end):
            found = await until_up(metrics, PROCESSES_MOST - 3)
            assert found.keys() >= kept
            assert found["lucid_workers",] == 8
            assert missing(found, "too_many") > 0
        found = await until_up(metrics, 9)
        assert (missing(found, "too_large"), missing(found, "unreadable")) == (0, 0)


async def test_made_up_processes_take_no_place_of_one_that_starts_again(
    server: NatsServer, jet: Jet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a stranger takes all places, and a process that is started again is called down."""
    monkeypatch.setattr(processes, "PROCESSES_MOST", 50)
    made_up = [f"x-{number}" for number in range(40)] + ["worker"] * 40
    strangers = [json.dumps({"process": name, "instance": f"m-{number}", "families": []}).encode()
                 for number, name in enumerate(made_up)]  # fmt: skip
    metrics = Metrics(jet, Meter("http"))
    supervisor = Meter("up", ("conductor", "worker", "http")).sample()

    def up(page: dict[tuple[str, ...], float]) -> set[str]:
        return {key[1] for key, value in page.items() if key[0] == "lucid_process_up" and value}

    async with answering(server, supervisor):
        async with answering(server, Meter("conductor").sample(), Meter("agent@a").sample()):
            await until_up(metrics, 4)
            async with answering(server, *strangers):
                await until_up(metrics, 50)
        async with answering(server, *strangers):
            page, _ = await metrics.text("")
            assert {"conductor", "agent@a"}.isdisjoint(up(samples(page)))
            async with answering(server, Meter("conductor").sample(), Meter("agent@a").sample()):
                async with asyncio.timeout(PATIENCE_S):
                    while not up(samples((await metrics.text(""))[0])) >= {
                        "conductor",
                        "agent@a",
                        "up",
                        "http",
                    }:
                        pass
            assert missing(samples((await metrics.text(""))[0]), "too_many") > 0


async def test_processes_that_start_and_end_a_hundred_times_leave_nothing(
    server: NatsServer, jet: Jet
) -> None:
    """Breaks: each restart leaves a process that is down, an alert for five minutes, and memory for ever."""
    metrics = Metrics(jet, Meter("http"))
    known = metrics._processes
    async with jet.hear(subjects.METRICS_LEFT, metrics.leave), answering(server, worker(7)):
        for turn in range(100):
            runs = [Meter(f"worker@node-{number}") for number in range(3)]
            other = await connect(server.url, name="ends", timeout_s=PATIENCE_S)
            async with AsyncExitStack() as stack:
                for run in runs:
                    await stack.enter_async_context(other.serve(subjects.METRICS, run.sample))
                if turn % 10 == 0:
                    await until_up(metrics, 5)
                else:
                    await metrics.text("")
            for run in runs:
                await other.tell(subjects.METRICS_LEFT, run.head())
            await other.close()
        found = await until_up(metrics, 2)
        assert {key[1] for key in found if key[0] == "lucid_process_up"} == {"http", "worker@node-7"}
        assert missing(found, "silent") == 0
        assert len(known._heard_s) == len(known._names) == 2
    found = await until_up(metrics, 1)
    assert found["lucid_process_up", "worker@node-7"] == 0, "it did not say that it leaves"


async def test_a_process_that_leaves_while_it_is_asked_is_not_shown_as_down(
    server: NatsServer, jet: Jet
) -> None:
    """Breaks: a process that was stopped between two looks is called down by the people on call."""
    metrics, run = Metrics(jet, Meter("http")), Meter("worker@a")
    answered = asyncio.Event()

    def sample() -> bytes:
        answered.set()
        return run.sample()

    async with jet.hear(subjects.METRICS_LEFT, metrics.leave):
        async with jet.serve(subjects.METRICS, sample):
            async with answering(server, worker(7)):
                await until_up(metrics, 3)
            answered.clear()
            asking = asyncio.create_task(metrics.text(""))  # it waits for the worker that was killed
            await answered.wait()
        await jet.tell(subjects.METRICS_LEFT, run.head())
        page, _ = await asking
    shown = {key[1]: value for key, value in samples(page).items() if key[0] == "lucid_process_up"}
    assert shown == {"http": 1, "worker@node-7": 0}
