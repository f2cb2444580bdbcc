"""Clients that open connections and send nothing, or never end: the others are served meanwhile."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI

from streams.api import connections
from streams.api.server import bound, serve
from tests.api.conftest import Served
from tests.support.machine.waiting import PATIENCE_S

IDLE = 1000


@contextlib.asynccontextmanager
async def answering() -> AsyncIterator[int]:
    """A server of ours with one route; its port."""
    app, stop, listening = FastAPI(openapi_url=None), asyncio.Event(), bound("127.0.0.1", 0)

    @app.get("/")
    async def answer() -> str:
        return "here"

    serving = asyncio.create_task(serve(app, listening, stop))
    try:
        yield listening.getsockname()[1]
    finally:
        stop.set()
        await serving


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: 1", b"\r\n\r\n"])
async def test_a_head_that_does_not_come_closes_its_connection(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a client that sends a byte now and then holds connections until there are none left."""
    monkeypatch.setattr(connections, "HEAD_S", 0.2)
    async with answering() as port, asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        assert await reader.read() == b""
        writer.close()


async def test_a_request_after_a_slow_one_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: the bound of a head also ends connections that do nothing wrong."""
    monkeypatch.setattr(connections, "HEAD_S", PATIENCE_S)
    async with answering() as port, asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            for piece in (b"GET / HT", b"TP/1.1\r\nHost", b": x\r\n\r\n"):
                writer.write(piece)
                await asyncio.sleep(0.01)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(6) == b'"here"'
        writer.close()


async def test_an_endless_head_is_refused() -> None:
    """Breaks: one connection fills the memory with a header that never ends."""
    async with answering() as port, asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nX-Long: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                writer.write(b"x" * 8192)
                await writer.drain()
        with contextlib.suppress(ConnectionError):
            assert (await reader.read()).startswith(b"HTTP/1.1 400")
        writer.close()
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{port}/")).status_code == 200


def test_a_thousand_idle_connections_leave_room_for_others(served: Served, client: httpx.Client) -> None:
    """Breaks: whoever opens connections and sends nothing takes the service from everybody."""
    place = urlsplit(served.url)
    with contextlib.ExitStack() as stack:
        for _ in range(IDLE):
            idle = socket.create_connection((place.hostname, place.port), timeout=PATIENCE_S)
            stack.callback(idle.close)
        assert client.get("/api/v1/sessions").status_code == 200
