"""Serves an application over HTTP until it is told to stop; requests under way are finished first."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from schemas.config.logs import logger
from schemas.errors import Unavailable
from streams.api.connections import Connection

GRACE_S = 10
"""How long requests under way may take after the signal to stop; a longer one is broken off."""
IDLE_S = 75
"""A connection without a request is closed after this time."""
WAITING_MOST = 256
"""Connections that may wait to be taken."""
CONNECTIONS_MOST = 4096
"""Beyond it requests are answered with 503."""
STALLED_MS = 60_000
"""The kernel ends a connection whose other side takes no byte for so long."""


log = logger("lucid.http")


class _Server(uvicorn.Server):
    """Leaves the signals to the role that runs it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bound(host: str, port: int) -> socket.socket:
    """A listening socket. Raises Unavailable (api.port)."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return _bounded(socket.create_server((host, port), family=family, backlog=WAITING_MOST))
    except OSError as error:
        raise Unavailable(
            f"{host}:{port} cannot be served: {error.strerror}",
            code="api.port",
            hint="choose another port or address",
        ) from None


def inherited(fd: int) -> socket.socket:
    """The listening socket that our supervisor holds. Connections that come meanwhile wait."""
    listening = socket.socket(fileno=fd)
    listening.set_inheritable(False)
    listening.listen(WAITING_MOST)
    return _bounded(listening)


def _bounded(listening: socket.socket) -> socket.socket:
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # accepted connections inherit it
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_MS)
    return listening


async def serve_beside(
    app: FastAPI, place: tuple[str, int], stop: asyncio.Event, tls: ssl.SSLContext | None
) -> None:
    """Serve on a second port until `stop` is set. If the port is taken, a warning says so."""
    try:
        listening = bound(*place)
    except Unavailable as error:
        log.warning("second_port_taken", address=place[0], port=place[1], why=error.message)
        return
    await serve(app, listening, stop, tls)


async def serve(
    app: FastAPI, listening: socket.socket, stop: asyncio.Event, tls: ssl.SSLContext | None = None
) -> None:
    """Serve until `stop` is set. tls: the certificates; None: plain HTTP."""
    config = uvicorn.Config(
        app,
        loop="none",
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS_MOST,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=GRACE_S,
        ssl_context_factory=(lambda *_: tls) if tls else None,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        server.should_exit = True
        await serving
