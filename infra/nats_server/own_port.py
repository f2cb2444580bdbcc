"""Keeps a port of this machine's loopback address for a server of ours, while that is down, too.

Nobody else is given it then: clients that come back would tell a stranger their password.
"""

import asyncio
import errno
import socket
import sys

LOOPBACK = "127.0.0.1"
LINGER_S = 2.0
"""How long a port of ours may still be held by the server before, or by its last connections."""
AGAIN_S = 0.05


async def keep_port(known: int) -> socket.socket:
    """Return a socket that holds the port `known`; another one where somebody has that, or where it is 0."""
    clock = asyncio.get_running_loop().time
    end_s, held = clock() + LINGER_S, None
    while known and held is None and clock() < end_s:
        held = _bound(known)
        if held is None:
            await asyncio.sleep(AGAIN_S)
    held = held or _bound(0)
    if held is None:
        raise OSError(errno.EADDRINUSE, "this machine has no port left")
    if sys.platform == "linux":
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the server listens beside it
    return held


def let_listen(held: socket.socket) -> None:
    """Before the server starts. Only Linux lets two sockets have one port."""
    if sys.platform != "linux":
        held.close()


def _bound(port: int) -> socket.socket | None:
    """None: somebody has it."""
    bound = socket.socket()
    if port:  # ended connections to a server that was there before count as its users
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((LOOPBACK, port))
    except OSError as error:
        bound.close()
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        return None
    return bound
