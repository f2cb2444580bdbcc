"""Fixtures that several folders share: a real nats-server in a folder of its own, and a connection to it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infra.jetstream import Jet, connect
from infra.nats_server import NatsServer


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
    jet = await connect(server.url, name="test")
    yield jet
    await jet.close()
