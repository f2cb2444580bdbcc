"""Speaks HTTP/1.1 to the measured service: small requests over kept connections, and whole bodies.

1. It must cost less than the service: a parser in C, one buffer for a whole download.
2. Requests never share a connection at once, so none waits for another one in the client.
"""

import asyncio
import http.client
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import httptools
from blake3 import blake3

from schemas.errors import Unavailable

READ_BYTES = 1 << 20
PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one request."""

    status: int
    body: bytes


class _Connection(asyncio.Protocol):
    """One connection. One request at a time."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._answer: asyncio.Future[Answer] | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, _: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Unavailable("the service hung up", code="bench.http"))

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        answer = Answer(self._parser.get_status_code(), b"".join(self._body))
        self._parser, self._body = httptools.HttpResponseParser(self), []
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)

    async def ask(self, request: bytes) -> Answer:
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self._answer


class HttpClient:
    """Sends small requests to one service; a context manager."""

    def __init__(self, url: str, token: str) -> None:
        place = urlsplit(url)
        self._host, self._port = str(place.hostname), int(place.port or 80)
        self._head = f"Host: {place.netloc}\r\nAuthorization: Bearer {token}\r\n"
        self._idle: list[_Connection] = []
        self._all: list[_Connection] = []

    async def __aenter__(self) -> "HttpClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._all:
            connection.transport.close()

    async def ask(self, method: str, path: str, body: bytes | None = None) -> Answer:
        """The answer to a request with a JSON body, or none. Raises Unavailable (bench.http), OSError."""
        about = "" if body is None else f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        request = f"{method} {path} HTTP/1.1\r\n{self._head}{about}\r\n".encode() + (body or b"")
        connection = await self._connection()
        answer = await connection.ask(request)
        self._idle.append(connection)
        return answer

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.transport.is_closing():
                return connection
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(_Connection, self._host, self._port)
        self._all.append(made)
        return made


@dataclass(frozen=True, slots=True)
class Transfer:
    """A body that was sent or received whole."""

    size: int
    seconds: float
    digest: str = ""

    @property
    def mb_per_s(self) -> float:
        return self.size / 1e6 / self.seconds


def download(url: str, headers: Mapping[str, str], *, hashed: bool = False) -> Transfer:
    """Read a body to its end, and drop it. Blocks. hashed: its BLAKE3 costs time. Raises Unavailable."""
    buffer, digest, size = memoryview(bytearray(READ_BYTES)), blake3(), 0
    with _asked(url, "GET", headers, None) as (response, began_s):
        while count := response.readinto(buffer):
            size += count
            if hashed:
                digest.update(buffer[:count])
        seconds = time.perf_counter() - began_s
        declared = response.getheader("content-length")
    return Transfer(size, seconds, digest.hexdigest() if hashed and declared == str(size) else "")


def upload(url: str, headers: Mapping[str, str], source: Path) -> Transfer:
    """Send a file as a body; it ends with the answer. Blocks. Raises Unavailable."""
    length = {"Content-Length": str(source.stat().st_size)}
    with _asked(url, "POST", {**headers, **length}, source) as (response, began_s):
        response.read()
        return Transfer(source.stat().st_size, time.perf_counter() - began_s)


@contextmanager
def _asked(
    url: str, method: str, headers: Mapping[str, str], source: Path | None
) -> Iterator[tuple[http.client.HTTPResponse, float]]:
    place = urlsplit(url)
    connection = http.client.HTTPConnection(
        str(place.hostname), place.port, timeout=PATIENCE_S, blocksize=READ_BYTES
    )
    began_s = time.perf_counter()
    try:
        if source is None:
            connection.request(method, place.path, headers=dict(headers))
        else:
            with source.open("rb") as body:
                connection.request(method, place.path, body, dict(headers))
        response = connection.getresponse()
        if response.status not in (200, 201, 206):
            raise Unavailable(f"{method} {place.path}: {response.status}", code="bench.http")
        yield response, began_s
    finally:
        connection.close()
