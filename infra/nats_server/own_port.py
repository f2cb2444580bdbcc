"""Holds a loopback port for our server, also while the server is down.

No other program gets the port then: reconnecting clients would tell it their password.
"""

import asyncio
import errno
import socket
import sys

LOOPBACK = "127.0.0.1"
LINGER_S = 2.0
"""The previous server, or its last connections, may hold the port that long."""
AGAIN_S = 0.05


async def keep_port(known: int) -> socket.socket:
    """Return a socket that holds the port `known`; another port if that is taken or 0."""
    clock = asyncio.get_running_loop().time
    end_s, held = clock() + LINGER_S, None
    while known and held is None and clock() < end_s:
        held = _bound(known)
        if held is None:
            await asyncio.sleep(AGAIN_S)
    held = held or _bound(0)
    if held is None:
        raise OSError(errno.EADDRINUSE, "no loopback port is free")
    if sys.platform == "linux":
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the server listens beside it
    return held


def let_listen(held: socket.socket) -> None:
    """Make way for the server, which starts next. Only Linux lets two sockets hold one port."""
    if sys.platform != "linux":
        held.close()


def _bound(port: int) -> socket.socket | None:
    """Return a bound socket; None: the port is taken."""
    bound = socket.socket()
    if port:  # else old connections to an earlier server would block it
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((LOOPBACK, port))
    except OSError as error:
        bound.close()
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        return None
    return bound
