"""Read models while MongoDB is away: the log goes on, lists say that they wait, and nothing is lost."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from infra.jetstream import Jet
from infra.read_models.mongo import MongoViews
from schemas.errors import Unavailable
from streams.event_store import topology
from streams.projections import projector
from tests.support.machine.waiting import PATIENCE_S
from tests.support.servers.described import Described
from tests.support.servers.secantus import Secantus, secantus


@asynccontextmanager
async def started(folder: Path, port: int = 0) -> AsyncIterator[Secantus]:
    with contextlib.ExitStack() as stack:
        yield await asyncio.to_thread(stack.enter_context, secantus(folder, port))


async def test_a_store_that_is_killed_loses_no_session(
    jet: Jet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: after an outage of MongoDB sessions are missing in every list, or commands wait for it."""
    monkeypatch.setattr(projector, "RETRY_S", 0.2)
    await topology.declare(jet, 2 << 30)
    world = Described(jet, tmp_path)
    await world.open("before", None)
    folder = tmp_path / "mongodb"
    async with started(folder) as server:
        views = MongoViews(f"{server.url}/outage", select_ms=200)
        port = int(server.url.rpartition(":")[2])
        async with world.projected(views) as listed:
            os.kill(server.pid, signal.SIGKILL)
            await world.open("meanwhile", None)
            with pytest.raises(Unavailable, match=r"views\.failed"):
                await listed.page({})
            async with started(folder, port), asyncio.timeout(PATIENCE_S):
                while True:
                    with contextlib.suppress(Unavailable):
                        page = await listed.page({})
                        if not page["behind"]:
                            break
                    await asyncio.sleep(0.05)
                assert [one["session"] for one in page["sessions"]] == ["meanwhile", "before"]
        await views.close()
