"""Owns a whole system on one machine: what is started, in which order, and how it ends.

    data directory (flock) → nats-server → streams → conductor, worker → run.json, and the same way back

1. Whoever holds the lock starts everything; all others attach through run.json (`streams.cli.attach`).
2. run.json appears when commands are answered, and is gone before anything stops answering.
3. Everything dies with the supervisor; a killed one leaves nothing that the next start does not clear.
4. The password of the server is in run.json and in the children's environment, both readable by us alone.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from schemas.errors import LucidError, Unavailable
from schemas.ports import Child, DataDir, Jet, Server
from streams.commands import call
from streams.topology import declare
from streams.wiring import Installation, connected, supervised

READY_S = 30.0
ASK_S = 0.1
STARTS_MOST = 4
"""A child that needs more of them before anything is answered will not live."""

ROLES = ("conductor", "worker")


@dataclass(frozen=True, slots=True)
class System:
    """A system that runs. `jet` is the supervisor's own connection."""

    data: DataDir
    server: Server
    children: tuple[Child, ...]
    jet: Jet


@asynccontextmanager
async def running(here: Installation, *, quiet: bool) -> AsyncIterator[System]:
    """Start everything, and stop it in order afterwards. quiet: what children say goes to logs/ only.

    Raises Unavailable (datadir.locked, nats.*, server.slow, server.child), Misuse (config.encryption_key),
    Denied (keys.*).
    """
    data = here.data
    data.lock()
    async with AsyncExitStack() as stack:
        stack.callback(data.unlock)
        await asyncio.to_thread(here.sweep)
        # a wrong ENCRYPTION_KEY shows now, not with the first session
        await asyncio.to_thread(here.keyring.newest)
        server = here.server()
        await server.start()
        stack.push_async_callback(server.stop)
        jet = await stack.enter_async_context(connected(server.url, "lucid-up"))
        await declare(jet, server.max_file)
        children = tuple(_child(role, server, data, quiet) for role in ROLES)
        stack.push_async_callback(_stop_all, children)
        for child in children:
            await child.start()
        await _answered(jet, data, children)
        data.write_run({"pid": os.getpid(), "nats_url": server.url})
        stack.callback((data.path / "run.json").unlink, missing_ok=True)
        yield System(data, server, children, jet)


def _child(role: str, server: Server, data: DataDir, quiet: bool) -> Child:
    # -P: a folder named like one of our packages, where lucid happens to be called, is not ours
    command = (sys.executable, "-P", "-m", "streams.cli.main", "serve", role, "--parent", str(os.getpid()))
    environment = {"NATS_URL": server.url, "LUCID_DATA": str(data.path)}
    return supervised(role, command, environment, data.logs / f"{role}.log" if quiet else None)


async def _stop_all(children: tuple[Child, ...]) -> None:
    await asyncio.gather(*(child.stop() for child in children))


async def _answered(jet: Jet, data: DataDir, children: tuple[Child, ...]) -> None:
    """Return when commands are answered. Raises Unavailable (server.slow, server.child)."""
    end_s = asyncio.get_running_loop().time() + READY_S
    while True:
        try:
            await call(jet, "ping", {})
            return
        except LucidError as error:
            if asyncio.get_running_loop().time() > end_s:
                raise Unavailable(
                    f"nothing answers commands after {READY_S:g} s: {error.message}",
                    code="server.slow",
                    hint=f"read {data.logs}",
                ) from None
        for child in children:
            if child.starts >= STARTS_MOST:
                raise Unavailable(
                    f"the {child.name} ends as soon as it is started",
                    code="server.child",
                    hint=f"read {data.logs / child.name}.log, or run: lucid serve {child.name}",
                )
        await asyncio.sleep(ASK_S)
