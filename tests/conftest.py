"""Fixtures that several folders share: a real nats-server in a folder of its own, and a connection to it."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
import uvloop
from hypothesis import HealthCheck, settings

from infra.jetstream import Jet, connect
from infra.nats_server.server import NatsServer
from streams.event_store import topology
from tests.support.machine.waiting import PATIENCE_S

# how long an example takes says more of the machine than of us
settings.register_profile(
    "untimed", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("untimed")


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on the event loop that the product runs on."""
    return {"uvloop": uvloop.new_event_loop}


SHARDS = {
    **dict.fromkeys(("test_recording", "test_full_stream", "test_conductor_faults", "test_runner"), 1),
    **dict.fromkeys(("test_live_prefix", "test_every_effect", "test_flooded_aborts"), 4),
    **dict.fromkeys(("test_many_sessions", "test_erasure", "test_hostile_hosts"), 4),
    **dict.fromkeys(("test_catching_up", "test_source_purge", "test_kills", "test_from_outside"), 16),
    **dict.fromkeys(("test_determinism", "test_one_history"), 16),
}
"""How many recording streams the installations of a test file have; 0, or not listed: as by default."""


@pytest.fixture(scope="module", autouse=True)
def shards(request: pytest.FixtureRequest) -> Iterator[int]:
    """The number of recording streams of new installations, in this process and in those that it starts."""
    count = getattr(request, "param", 0) or SHARDS.get(request.module.__name__.rsplit(".", 1)[-1], 0)
    if not count:
        yield topology.DEFAULT_SHARDS
        return
    with patch.object(topology, "DEFAULT_SHARDS", count), patch.dict(os.environ, SHARDS=str(count)):
        yield count


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A server with 4 GiB of promised file space, ended after the test."""
    server = NatsServer(tmp_path / "nats", max_file=4 << 30)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def jet(server: NatsServer) -> AsyncIterator[Jet]:
    """A connection to `server`; streams are not declared."""
    jet = await connect(server.url, name="test", timeout_s=PATIENCE_S)
    yield jet
    await jet.close()


@pytest.fixture
def may_come_back(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """A server that ends is not started again before this is set."""
    child = server._child
    assert child is not None
    allowed, spawn = asyncio.Event(), child._spawn

    async def held_back() -> None:
        await allowed.wait()
        await spawn()

    monkeypatch.setattr(child, "_spawn", held_back)
    return allowed
