"""Many open chunks in one worker with little memory: the others come from files, not from the stream."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.disk import overflow
from infra.disk.overflow import DiskOverflowFile
from infra.nats_server.server import NatsServer
from streams.event_store.recordings import Recordings
from streams.roles.services import run_conductor, run_worker
from tests.support.machine.waiting import PATIENCE_S, until
from tests.support.pipeline.conducted import World, connected, running
from tests.support.pipeline.effects import begin, each, sealed
from tests.support.pipeline.prepared import Prepared, Step

MEMORY_BYTES = 1 << 20
STEPS: list[Step] = [("data", 60_000)] * 11
"""Three chunks of up to 256 KiB: 24 sessions have up to 6 MiB open at once."""


@pytest.fixture
def sessions() -> dict[str, Prepared]:
    return {f"spilled-{n:02}": Prepared(f"spilled-{n:02}", n, STEPS) for n in range(1, 25)}


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Fragments that were written to files, and those that were read from the stream again."""
    counted = Counter[str]()
    append, get_many = DiskOverflowFile.append, Recordings.get_many

    def counting_append(file: DiskOverflowFile, data: Any) -> int | None:
        at = append(file, data)
        counted["spilled" if at is not None else "refused"] += 1
        return at

    async def counting_get(self: Recordings, session: str, seqs: Any) -> Any:
        counted["read again"] += len(seqs)
        return await get_many(self, session, seqs)

    monkeypatch.setattr(overflow, "SLOW_S", PATIENCE_S)  # a busy machine is no slow disk
    monkeypatch.setattr(DiskOverflowFile, "append", counting_append)
    monkeypatch.setattr(Recordings, "get_many", counting_get)
    return counted


@asynccontextmanager
async def small_worker(world: World, spill_bytes: int) -> AsyncIterator[None]:
    stages = world.settings.stages
    small = {"RECORDER": replace(stages["RECORDER"], memory_bytes=MEMORY_BYTES)}
    world.settings = replace(world.settings, stages={**stages, **small}, spill_bytes=spill_bytes)
    async with running(run_worker, world):
        yield


async def send_in_turn(world: World, sessions: dict[str, Prepared], numbers: range) -> None:
    """Each session's fragments by number: all chunks are open together."""
    for number in numbers:
        for prepared in sessions.values():
            await world.jet.publish(prepared.subject, prepared.fragments[number])


async def all_sealed(
    server: NatsServer, path: Path, sessions: dict[str, Prepared], spill_bytes: int
) -> World:
    """Record all sessions side by side with a small worker, to the end."""
    length = len(next(iter(sessions.values())).fragments)
    async with connected(server, path) as world, running(run_conductor, world):
        await each(begin, world, sessions)
        async with small_worker(world, spill_bytes):
            await send_in_turn(world, sessions, range(length))
            await sealed(world, sessions)
    return world


async def test_chunks_beyond_the_memory_are_made_without_the_stream(
    server: NatsServer, tmp_path: Path, sessions: dict[str, Prepared], counts: Counter[str]
) -> None:
    """Breaks: 250 sessions fill a worker, and the server reads each of their bytes twice."""
    world = await all_sealed(server, tmp_path, sessions, 1 << 30)
    assert counts["spilled"] > len(sessions)
    assert counts["refused"] == counts["read again"] == 0
    assert list(world.data.temp.iterdir()) == []


@pytest.mark.parametrize("lost", ["refused", "unreadable", "damaged"])
async def test_chunks_whose_file_fails_are_made_from_the_stream(
    server: NatsServer,
    tmp_path: Path,
    sessions: dict[str, Prepared],
    counts: Counter[str],
    lost: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Breaks: a full or bad scratch disk costs a chunk."""
    read = DiskOverflowFile.read

    def failing(file: DiskOverflowFile, at: int, into: memoryview) -> bool:
        done = read(file, at, into)
        into[0] ^= 1
        return done and lost == "damaged"

    if lost != "refused":
        monkeypatch.setattr(DiskOverflowFile, "read", failing)
    await all_sealed(server, tmp_path, sessions, 300_000 if lost == "refused" else 1 << 30)
    assert counts["spilled"] > 0
    assert counts["read again"] > 0


async def test_a_worker_that_starts_again_goes_on_without_the_files(
    server: NatsServer, tmp_path: Path, sessions: dict[str, Prepared], counts: Counter[str]
) -> None:
    """Breaks: after a restart a chunk misses the bytes that the last worker had in a file."""
    length = len(next(iter(sessions.values())).fragments)
    async with connected(server, tmp_path) as world, running(run_conductor, world):
        await each(begin, world, sessions)
        async with small_worker(world, 1 << 30):
            await send_in_turn(world, sessions, range(5))
            await until(lambda: counts["spilled"] > 0)
        async with small_worker(world, 1 << 30):
            await send_in_turn(world, sessions, range(5, length))
            await sealed(world, sessions)
    assert list(world.data.temp.iterdir()) == []
