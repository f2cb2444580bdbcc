"""The number of worker groups changes while sessions are recorded: a real server, conductor and workers."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from infra.nats_server.server import NatsServer
from schemas import subjects
from streams.event_store.recordings import Recordings
from streams.pipeline import chunk_memory
from streams.roles.services import run_worker
from tests.support.pipeline.both_verifiers import verified
from tests.support.pipeline.conducted import World, running, system

SESSIONS = [f"demo-{n:02}" for n in range(6)]
ROUNDS = (1, 2, 1, 3, 2)
"""Groups, one round after the other."""


@asynccontextmanager
async def workers(world: World, groups: int) -> AsyncIterator[None]:
    """One of every group; whatever is in work at the end is handed back."""
    async with AsyncExitStack() as stack:
        for group in range(groups):
            await stack.enter_async_context(running(partial(run_worker, group=group, groups=groups), world))
        yield


async def test_sessions_are_sealed_whole_whatever_the_number_of_groups_was_meanwhile(
    server: NatsServer, tmp_path: Path, shards: int
) -> None:
    """Breaks: a worker more or less, and a session is never sealed, or lacks a chunk."""
    async with system(server, tmp_path, worker=False) as world:
        hosts = [await world.start(name) for name in SESSIONS]
        assert len({subjects.partition(name) % 2 for name in SESSIONS}) == 2
        assert (await Recordings.open(world.jet)).shards == shards
        for number, groups in enumerate(ROUNDS, 1):
            async with workers(world, groups):
                for host in hosts:
                    await host.record(12)
                await world.stored(SESSIONS[groups], number)
        for host in hosts:
            await host.final()
        async with workers(world, 1):
            for name, host in zip(SESSIONS, hosts, strict=True):
                await world.until(name, "STOPPED")
                manifest = await verified(world, name, tmp_path)
                assert manifest.totals.fragments == len(host.sent)
                assert manifest.gaps == ()


async def test_two_workers_of_one_group_do_not_wait_for_what_the_other_has_stored(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a second worker, by mistake or to take over, makes both stand still for half a minute."""
    monkeypatch.setattr(chunk_memory, "IDLE_S", 3600.0)
    async with system(server, tmp_path, worker=False) as world:
        stages = world.settings.stages
        small = {name: replace(stages[name], memory_bytes=1 << 20) for name in ("RECORDER", "CHUNK")}
        world.settings = replace(world.settings, stages={**stages, **small})
        async with workers(world, 1), workers(world, 1):
            host = await world.start("demo-01")
            await host.record(400)
            await host.final()
            await world.until("demo-01", "STOPPED")
        manifest = await verified(world, "demo-01", tmp_path)
        assert manifest.totals.fragments == len(host.sent)
