"""A server that is killed, and comes back."""

import os
import signal

from infra.nats_server.server import NatsServer
from tests.support.machine.waiting import until


async def kill(server: NatsServer) -> None:
    """Kill -9; return when its supervisor has started the next one."""
    starts = server.starts
    os.kill(server.pid, signal.SIGKILL)
    await until(lambda: server.starts > starts)
