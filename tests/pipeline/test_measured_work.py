"""A worker tells of its work while its store fails, hangs or holds other bytes. Real server."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import pytest

from infra.blobs.disk import DiskBlobs
from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.errors import Unavailable
from streams.conductor import measurements
from streams.evidence.evidence_store import EvidenceStore
from streams.roles.drivers import Installation
from streams.roles.services import run_conductor, run_worker
from tests.support.machine.waiting import PATIENCE_S, until
from tests.support.pipeline.conducted import World, connected

FAILURES = 3
Found = Mapping[tuple[str, ...], float]


class Store(DiskBlobs):
    """Fails the first calls, hangs while it is shut, and counts both."""

    def __init__(self, chunks: Path, quarantine: Path, failures: int) -> None:
        super().__init__(chunks, quarantine)
        self.open = threading.Event()
        self.failures, self.failed, self.hanging = failures, 0, 0

    def put(self, name: str, data: bytes | bytearray | memoryview) -> Literal["created", "exists"]:
        if self.failed < self.failures:
            self.failed += 1
            raise Unavailable("the store is away", code="store.away")
        self.hanging += 1
        self.open.wait(PATIENCE_S)
        self.hanging -= 1
        return super().put(name, data)


class Worker:
    """A worker with such a store."""

    def __init__(self, world: World, failures: int) -> None:
        data, self.here = world.data, world.here
        self.store = Store(data.chunks, data.quarantine, failures)
        self.here.evidence = EvidenceStore(
            self.store, DiskBlobs(data.manifests, data.quarantine), DiskBlobs(data.quarantine)
        )

    @property
    def told(self) -> Found:
        return told_by(self.here)

    def stage(self, name: str, *labels: str) -> float:
        """A measurement of the stage `store`."""
        return self.told[f"lucid_stage_{name}", "store", *labels]


def told_by(here: Installation) -> Found:
    """The samples of a process by name and values of labels."""
    return {
        (name, *labels.values()): value
        for family in json.loads(here.meter.sample())["families"]
        for name, labels, value, _ in family["samples"]
    }


@asynccontextmanager
async def conducted(server: NatsServer, path: Path) -> AsyncIterator[tuple[World, Installation]]:
    """The streams, and a conductor with its measurements."""
    async with connected(server, path) as world:
        here, stop = world.here, asyncio.Event()
        task = asyncio.create_task(run_conductor(here, world.jet, stop))
        try:
            await world.answered()
            yield world, here
        finally:
            stop.set()
            await task


@asynccontextmanager
async def working(world: World, failures: int = 0) -> AsyncIterator[Worker]:
    one, stop = Worker(world, failures), asyncio.Event()
    task = asyncio.create_task(run_worker(one.here, world.jet, stop))
    try:
        yield one
    finally:
        one.store.open.set()
        stop.set()
        await task


async def recorded(world: World, fragments: int = 30) -> int:
    """Record a session to its end; return how many chunks have reached the store."""
    host = await world.start("demo-01")
    await host.record(fragments)
    await host.final()
    events = [json.loads(one) for one in await bodies(world, "recorded", lambda one: b"ended" in one)]
    chunks = sum("index" in event for event in events)
    await bodies(world, "proven", lambda _: True, chunks)
    return chunks


async def bodies(world: World, step: str, wanted: Callable[[bytes], bool], count: int = 1) -> list[bytes]:
    """The events of one step, once so many are as wanted."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            subject = subjects.chunk(step, "demo-01")
            found = [bytes(one.data) async for one in world.jet.read_all(subjects.CHUNKS, subject)]
            if sum(map(wanted, found)) >= count:
                return found
            await asyncio.sleep(0.05)


async def test_failed_and_hanging_work_is_counted_as_it_is(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a store that fails or hangs is seen by nobody before the streams are full."""
    monkeypatch.setattr(measurements, "LOOK_S", 0.1)
    async with conducted(server, tmp_path) as (world, conductor):
        async with working(world, FAILURES) as worker:
            chunks = await recorded(world)
            workers = worker.stage("workers")
            await until(lambda: worker.stage("redelivered_total") == FAILURES)
            await until(lambda: worker.store.hanging == worker.stage("busy_workers") == workers)
            assert worker.stage("retries_total", "outage") == worker.store.failed == FAILURES
            assert worker.stage("in_flight") == chunks
            assert worker.stage("chunks_total") == worker.stage("seconds_count") == 0
            await until(lambda: told_by(conductor).get(("lucid_stage_lag", "store")) == chunks)
            consumers = await world.jet.consumers(subjects.CHUNKS)
            asked = [one for one in consumers if one.name.startswith("store")]
            assert sum(one.pending + one.unacknowledged for one in asked) == chunks
            assert 0 < worker.told["lucid_credit_used_bytes", "fast"] <= 30 * 50_000
            worker.store.open.set()
            await world.until("demo-01", "STOPPED")
            # The stored events came first: the acknowledgements and the counts of the last chunks follow.
            await until(lambda: worker.told["lucid_chunk_seconds_count",] == chunks)
            assert worker.stage("chunks_total") == worker.stage("seconds_count") == chunks
            await until(lambda: worker.stage("in_flight") == worker.stage("busy_workers") == 0)
            assert worker.told["lucid_credit_used_bytes", "fast"] == 0
        await until(lambda: told_by(conductor)["lucid_stage_lag", "store"] == 0)


async def test_each_chunk_that_a_new_worker_makes_again_is_counted(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: a worker that restarts all the time does all work twice, and looks busy."""
    async with conducted(server, tmp_path) as (world, _):
        async with working(world, failures=10**9) as worker:
            chunks = await recorded(world)
            await until(lambda: worker.store.failed > chunks)
        assert worker.stage("retries_total", "outage") == worker.store.failed
        async with working(world) as again:
            again.store.open.set()
            await world.until("demo-01", "STOPPED")
            await until(lambda: again.stage("chunks_total") == chunks)
            assert again.told["lucid_recomputations_total",] == chunks


async def test_false_bytes_in_the_store_are_a_failure_of_verification_and_a_dead_letter(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: evidence is false, the chunk is lost, and no number rises."""
    async with conducted(server, tmp_path) as (world, _), working(world) as worker:
        worker.store.open.set()
        host = await world.start("demo-01")
        folder = world.data.chunks / (await world.ask("show", "demo-01"))["uid"]
        folder.mkdir(parents=True)
        (folder / "0000000001").write_bytes(b"other bytes")
        await host.record(30)
        await until(lambda: worker.stage("dead_letters_total") > 0)  # told after the letter is written
        dead = [one async for one in world.jet.read_all(subjects.DEAD, "lucid.dead.store.*.demo-01")]
        assert worker.stage("dead_letters_total") == len(dead) == 1
        assert worker.told["lucid_verification_failures_total", "store"] == 1
        code = json.loads(dead[0].data)["code"]
        assert worker.told["lucid_errors_total", code] == 1
