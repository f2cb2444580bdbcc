"""Things that happen while a pass of the scrub is under way: a seal, a destruction, a full disk."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from infra.blobs.disk import DiskBlobs
from infra.nats_server.server import NatsServer
from schemas.errors import NoSpace
from streams.control.client import call
from streams.evidence.scrub_pace import ScrubPace
from tests.support.machine.waiting import PATIENCE_S
from tests.support.pipeline.conducted import World
from tests.support.pipeline.scrubbed import (
    asked,
    flip,
    one_pass,
    open_alarms,
    sealed,
    shown,
    system,
    written_at_once,
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits."""
    written_at_once(monkeypatch)


@asynccontextmanager
async def stopped_at(world: World, monkeypatch: pytest.MonkeyPatch, reads: int) -> AsyncIterator[None]:
    """A pass that stands before one of its reads until the block ends."""
    reached, go = asyncio.Event(), asyncio.Event()
    counted = 0

    async def spend(_: ScrubPace, size: int) -> None:
        nonlocal counted
        counted += 1
        if counted == reads:
            reached.set()
            await go.wait()

    monkeypatch.setattr(ScrubPace, "spend", spend)
    await asked(world, now=True)
    async with asyncio.timeout(PATIENCE_S):
        await reached.wait()
    yield
    go.set()


def first_ended(number: int) -> Callable[[dict[str, dict[str, int]]], bool]:
    return lambda found: bool(found["last"]) and found["last"]["number"] == number


async def test_a_session_that_is_sealed_in_mid_pass_is_checked_in_that_pass(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a session that is sealed behind the place of the pass is proven by nobody for six hours."""
    async with system(server, tmp_path) as world:
        early = await world.start("demo-01")  # created before the sealed one: behind the place of the pass
        await early.record(24)
        files = await sealed(world, "demo-02")
        async with stopped_at(world, monkeypatch, 3):
            await early.final()
            stopped = await world.until("demo-01", "STOPPED")
        found = await shown(world, first_ended(1))
        early_files = list((world.data.chunks / stopped["uid"]).iterdir())
        assert (found["last"]["sessions"], found["last"]["chunks"]) == (1, len(files) + len(early_files))
        assert open_alarms(found) == []


@pytest.mark.parametrize("reads", [1, 3])
async def test_a_session_that_is_destroyed_in_mid_pass_is_no_finding(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: int
) -> None:
    """Breaks: each destruction is an alarm, or a repair brings a chunk back whose key is erased."""
    async with system(server, tmp_path) as world:
        files = await sealed(world)
        flip(files[-1], 200)
        async with stopped_at(world, monkeypatch, reads):
            await call(world.jet, "destroy", {"session": "demo-01"}, PATIENCE_S)
        found = await shown(world, first_ended(1))
        assert (found["last"]["alarms"], found["last"]["repaired"], open_alarms(found)) == (0, 0, [])
        assert not any(path.exists() for path in files)


async def test_a_full_disk_leaves_the_damaged_file_in_its_place_until_there_is_space(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a repair without space loses the file that it cannot replace, or holds up all others."""
    async with system(server, tmp_path) as world:
        files = await sealed(world)
        others = await sealed(world, "demo-02")
        good = files[1].read_bytes()
        flip(files[1], 200)
        bad = files[1].read_bytes()

        def full(_: DiskBlobs) -> None:
            raise NoSpace("no space left", code="blobs.space")

        with monkeypatch.context() as during:
            during.setattr(DiskBlobs, "new", full)
            found = await one_pass(world)
        assert open_alarms(found) == [("demo-01", "chunk 1", "chunk.digest")]
        assert found["last"]["chunks"] == len(files) + len(others)
        assert files[1].read_bytes() == bad
        found = await one_pass(world)
        assert (found["last"]["repaired"], open_alarms(found)) == (1, [])
        assert files[1].read_bytes() == good
