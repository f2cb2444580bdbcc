"""NATS_URL with several URLs, of which one answers: a real server, conductor and worker."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from infra.nats_server.server import NatsServer
from tests.support.pipeline.conducted import system


async def test_a_session_is_sealed_while_one_server_of_several_is_away(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: a cluster cannot be named by more than one of its servers."""
    several: Any = SimpleNamespace(url=f"nats://127.0.0.1:9, {server.url}")
    async with system(several, tmp_path) as world:
        host = await world.start("demo-01")
        await host.record(6)
        await host.final()
        await world.until("demo-01", "STOPPED")
