"""Fixtures that several folders share: a real nats-server in a folder of its own, and a connection to it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop
from hypothesis import HealthCheck, settings

from infra.jetstream import Jet, connect
from infra.nats_server.server import NatsServer
from tests.support.machine.waiting import PATIENCE_S

# how long an example takes says more of the machine than of us
settings.register_profile(
    "untimed", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("untimed")


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on the event loop that the product runs on."""
    return {"uvloop": uvloop.new_event_loop}


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
