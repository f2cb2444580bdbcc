"""Three real servers that keep every stream three times, as an installation's own NATS cluster does."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

from infra.jetstream import StreamSpec, connect
from infra.nats_server.server import binary
from schemas.errors import LucidError
from tests.support.machine.waiting import PATIENCE_S
from tests.support.servers.ports import held_ports

SERVERS = 3


class Server(NamedTuple):
    url: str
    pid: int


@contextlib.asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[list[Server]]:
    """Three servers that have chosen a leader; they are ended after the block."""
    with held_ports(2 * SERVERS) as ports:
        async with _running(folder, ports[:SERVERS], ports[SERVERS:]) as servers:
            yield servers


@contextlib.asynccontextmanager
async def _running(folder: Path, clients: list[int], routes: list[int]) -> AsyncIterator[list[Server]]:
    servers: list[asyncio.subprocess.Process] = []
    try:
        for number, (client, route) in enumerate(zip(clients, routes, strict=True)):
            config = folder / f"{number}.conf"
            config.write_text(_config(folder / f"store-{number}", number, client, route, routes))
            servers.append(
                await asyncio.create_subprocess_exec(
                    *(binary(), "--config", str(config)),
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.DEVNULL,
                )
            )
        urls = [f"nats://127.0.0.1:{port}" for port in clients]
        async with asyncio.timeout(PATIENCE_S):
            await _leader(urls[0])
        yield [Server(url, process.pid) for url, process in zip(urls, servers, strict=True)]
    finally:
        for server in servers:
            with contextlib.suppress(ProcessLookupError):
                server.kill()
        await asyncio.gather(*(server.wait() for server in servers))


async def _leader(url: str) -> None:
    """Return when the servers can keep a stream."""
    while True:
        with contextlib.suppress(LucidError):
            jet = await connect(url, name="cluster")
            try:
                await jet.declare(StreamSpec("READY", ("ready",), 1 << 20, replicas=SERVERS))
                return
            finally:
                await jet.close()
        await asyncio.sleep(0.1)


def _config(store: Path, number: int, client: int, route: int, routes: list[int]) -> str:
    return f"""server_name: "server-{number}"
host: "127.0.0.1"
port: {client}
max_payload: {1 << 20}
jetstream {{ store_dir: "{store}", max_file_store: {1 << 30}, sync_interval: always }}
cluster {{
  name: "lucid"
  listen: "127.0.0.1:{route}"
  routes: [{", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)}]
}}
"""
