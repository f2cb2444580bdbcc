"""A server that is killed, and comes back."""

import os
import signal

from infra.nats_server.server import NatsServer
from tests.support.machine.waiting import until


async def kill(server: NatsServer) -> None:
    """Kill -9; return when its supervisor has started the next one."""
    await until(lambda: server.pid != 0)  # 0 while it is down; kill(0) would strike the tests themselves
    starts = server.starts
    os.kill(server.pid, signal.SIGKILL)
    await until(lambda: server.starts > starts)
