"""Moves bytes between nats-py and the socket, with fewer copies than nats-py itself.

1. A large payload is received into its final memory (Landing), and sent from its own (by uvloop's transport):
   only the kernel copies it. nats-py copies five and six times (4 CPU seconds a GB for 64 messages of 960 KiB
   under way).
2. Bytes that wait for the socket are bounded: writing waits, reading pauses.
3. A new connection starts empty: no byte of the old one reaches it.
4. What one round of the event loop writes goes out together, without a task of its own.
5. wire_parser.py puts it into nats-py's client.
"""

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Callable
from typing import cast
from urllib.parse import ParseResult

from nats.aio.transport import Transport
from nats.protocol.parser import CRLF_SIZE

from infra.jetstream.payloads import Landing
from schemas.buffers import Bytes

PORT = 4222
SMALL_BYTES = 32 << 10
"""Shorter commands are joined before they are sent."""
SCRATCH_BYTES = 64 << 10
"""The most that one read takes of everything else."""
LINE_BYTES = 1 << 20
"""A longer line is no greeting of a NATS server."""
CLOSE_S = 2.0
"""The time for a peer that reads no more."""
Feed = Callable[[bytes], bytes | None]
"""Takes received bytes at once, and returns those that the reader must have; None: none."""


class WireProtocol(asyncio.BufferedProtocol):
    """One TCP connection: received bytes that are not read yet, and whether it accepts more to send."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.on_writable: Callable[[], None] = lambda: None
        self.chunks: deque[bytes] = deque()
        self.landing: Landing | None = None
        """The payload that the parser waits for; bytes go there once all earlier ones are read."""
        self.feed: Feed | None = None
        """Set while the reader waits for nothing but messages."""
        self.eof = False
        self.lost = asyncio.Event()
        self.why = ""
        """Why the connection was lost; empty: one side closed it."""
        self._scratch = memoryview(bytearray(SCRATCH_BYTES))
        self._lands = False
        """The bytes under way go to the landing."""
        self._paused = False
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self._paused = cast(asyncio.Transport, transport), False
        self.transport.set_write_buffer_limits(high=SMALL_BYTES)

    def get_buffer(self, sizehint: int) -> memoryview:
        if self.landing is not None and self.landing.rest and not self.chunks:
            self._lands = True
            return self.landing.rest
        self._lands = False
        return self._scratch

    def buffer_updated(self, nbytes: int) -> None:
        data = b""
        if self._lands and self.landing is not None:
            self.landing.rest = self.landing.rest[nbytes:]
            if self.landing.rest:
                return
        else:
            data = bytes(self._scratch[:nbytes])
        if self.feed is not None and not self.chunks:
            rest = self.feed(data)
            if rest is None:
                return
            self.feed, data = None, rest
        if data:
            self.chunks.append(data)
        self._readable.set()
        self._pause(True)  # only the parser knows the place of the next bytes

    def eof_received(self) -> None:
        self.eof = True
        self._readable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.eof, self.why = True, str(exc or "")
        self._readable.set()
        self._writable.set()
        self.lost.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()
        self.on_writable()

    async def take(self) -> bytes:
        """Return the next bytes; none: at the end, or when the landing is complete."""
        while not (self.chunks or self.eof or self._landed):
            self._readable.clear()
            self._pause(False)
            await self._readable.wait()
        return b"" if self._landed or not self.chunks else self.chunks.popleft()

    def put_back(self, data: bytes) -> None:
        if data:
            self.chunks.appendleft(data)

    @property
    def _landed(self) -> bool:
        return self.landing is not None and not self.landing.rest

    def _pause(self, wanted: bool) -> None:
        if wanted == self._paused or self.transport is None or self.transport.is_closing():
            return
        self._paused = wanted
        if wanted:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    @property
    def is_writable(self) -> bool:
        return self._writable.is_set()

    @property
    def open(self) -> asyncio.Transport | None:
        """The transport; None: this connection is lost, or one side closed it."""
        gone = self.lost.is_set() or self.transport is None or self.transport.is_closing()
        return None if gone else self.transport

    async def writable(self) -> None:
        """Return when the transport accepts more. Raises ConnectionResetError."""
        await self._writable.wait()
        if self.open is None:
            raise ConnectionResetError("connection lost")


class WireTransport(Transport):
    """The driver's transport over one WireProtocol after another."""

    def __init__(self) -> None:
        self._protocol = WireProtocol()
        self.on_connect: Callable[[], None] = lambda: None
        self.feed: Feed | None = None
        self._out: deque[Bytes] = deque()
        self._writes_soon = False
        self.waiting_bytes = 0
        """Bytes given to `write`, and not yet to the socket."""
        self.moved = asyncio.Event()
        """Set whenever `waiting_bytes` falls."""

    def __bool__(self) -> bool:
        return True  # nats-py replaces a false transport before it connects

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        self._protocol, self._out, self.waiting_bytes = WireProtocol(), deque(), 0
        self._protocol.on_writable = self._write_out
        self.on_connect()
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(connect_timeout):
            await loop.create_connection(lambda: self._protocol, str(uri.hostname), int(uri.port or PORT))

    async def connect_tls(
        self, uri: str | ParseResult, ssl_context: ssl.SSLContext, buffer_size: int, connect_timeout: int
    ) -> None:
        protocol = self._protocol
        assert protocol.transport is not None
        if protocol.chunks:  # a third party could inject text into the secure link
            raise ConnectionAbortedError("plain text after the greeting, before TLS")
        host = uri if isinstance(uri, str) else uri.hostname
        async with asyncio.timeout(connect_timeout):
            transport = await asyncio.get_running_loop().start_tls(
                protocol.transport, protocol, ssl_context, server_hostname=host
            )
        assert transport is not None
        protocol.connection_made(transport)

    def write(self, payload: Bytes) -> None:
        """Queue bytes; they go to the socket before the event loop waits again, if it takes them."""
        self._out.append(payload)
        self.waiting_bytes += len(payload)
        if not self._writes_soon:
            self._writes_soon = True
            asyncio.get_running_loop().call_soon(self._write_queued)

    def writelines(self, payload: list[bytes]) -> None:
        for piece in payload:
            self.write(piece)

    async def drain(self) -> None:
        """Return when all but a small rest is in the socket. Raises ConnectionResetError."""
        protocol = self._protocol
        self._write_out()
        while self._out and protocol is self._protocol:
            await protocol.writable()
            self._write_out()
        await protocol.writable()

    def _write_queued(self) -> None:
        self._writes_soon = False
        self._write_out()

    def _write_out(self) -> None:
        """Write what the socket takes. A loss is the reader's to notice: it sees the end, too."""
        protocol = self._protocol
        transport = protocol.open
        if transport is None:
            return
        while self._out and protocol.is_writable:
            pieces = self._next()
            transport.writelines(pieces)
            self.waiting_bytes -= sum(map(len, pieces))
            self.moved.set()

    async def read(self, buffer_size: int) -> bytes:
        """Return the next bytes that `feed` has not taken."""
        protocol = self._protocol
        protocol.feed = self.feed
        try:
            return await protocol.take()
        finally:
            protocol.feed = None

    def land(self, landing: Landing | None) -> None:
        """Receive the next bytes into the landing; None: into the queue."""
        self._protocol.landing = landing

    async def readline(self) -> bytes:
        line = bytearray()
        while data := await self._protocol.take():
            end = data.find(b"\n") + 1
            if end:
                self._protocol.put_back(data[end:])
                return bytes(line + data[:end])
            line += data
            if len(line) > LINE_BYTES:
                raise ConnectionAbortedError("a line without an end")
        return bytes(line)

    @property
    def why(self) -> str:
        """Why this connection was lost, if known."""
        return self._protocol.why

    def at_eof(self) -> bool:
        return self._protocol.eof and not self._protocol.chunks

    def close(self) -> None:
        self._write_out()
        if self._protocol.transport is not None:
            self._protocol.transport.close()

    async def wait_closed(self) -> None:
        if self._protocol.transport is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._protocol.lost.wait()
        self.abort()

    def abort(self) -> None:
        """Close the socket at once; bytes that wait for it are lost."""
        if self._protocol.transport is not None:
            self._protocol.transport.abort()

    def _next(self) -> list[Bytes]:
        """Take small commands, joined, then at most one large payload with its line end.

        They go out with one system call: pieces of their own would wake the server for each.
        """
        small, size = [self._out.popleft()], 0
        while self._out and (size := size + len(small[-1])) + len(self._out[0]) <= SMALL_BYTES:
            small.append(self._out.popleft())
        pieces = [b"".join(small) if len(small) > 1 else small[0]]
        while self._out and len(pieces) < 3 and (len(pieces) == 1 or len(self._out[0]) == CRLF_SIZE):
            pieces.append(self._out.popleft())
        return pieces
