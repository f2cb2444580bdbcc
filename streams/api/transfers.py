"""Sends long bodies in pieces, with bounded memory: chunks take turns, slow callers are cut off.

1. A chunk in memory holds a slot, from the reading of its bytes until the last of them is sent. The next
   chunk of a transfer is read meanwhile, in a slot of its own.
2. A process has CHUNKS_MOST slots, a caller ONE_CALLER of them. Transfers beyond that wait for a turn.
3. A caller that does not take PIECE_BYTES in PIECE_S is cut off, and so is one that has hung up: nothing is
   read for it any more. `cut_off` says so afterwards.
4. A zip holds one chunk until it ends, a list of lines some of them. A process sends EXPORTS_MOST zips and
   LISTS_MOST lists, a caller EXPORTS_ONE and LISTS_ONE; more are refused.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, MutableMapping
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from schemas.config.logs import logger
from schemas.errors import Busy, LucidError
from streams.scheduling.fair_slots import FairSlots

CHUNKS_MOST, ONE_CALLER = 16, 8
"""Chunks in memory: 10 MiB each, unless CHUNK_SIZE_MB is larger."""
EXPORTS_MOST, EXPORTS_ONE = 8, 2
"""Zips that are sent at once."""
LISTS_MOST, LISTS_ONE = 32, 8
"""Lists of lines that are sent at once: each is a reader of the server."""
PIECE_BYTES, LINES_BYTES = 1 << 20, 64 << 10
PIECE_S = 20.0
"""52 kB/s: less than a third of a recording at 1.2 Mbit/s."""

Read = Callable[[], Awaitable[memoryview]]
"""Reads the bytes of one chunk."""
Check = Callable[[], Awaitable[object]]
"""Raises an error if bytes that were read must not leave any more."""

Piece = TypeVar("Piece", bytes, memoryview)

CUT_OFF = "transfer.cut_off"
"""The code of a transfer that did not come to its end; also a name in the state of its request."""
CHECK = "transfer.check"
"""A name in the state of a request."""
CHECK_S = 5.0
"""How long bytes may leave after the right to them has ended."""

log = logger("lucid.api")


class Transfers:
    """The slots of one process."""

    def __init__(self) -> None:
        self._slots = FairSlots(CHUNKS_MOST, ONE_CALLER)
        self._exports = FairSlots(EXPORTS_MOST, EXPORTS_ONE)
        self._lists = FairSlots(LISTS_MOST, LISTS_ONE)

    @property
    def held(self) -> int:
        """Chunks in memory."""
        return self._slots.used + self._exports.used

    async def pieces(
        self, caller: str, reads: Iterable[Read], check: Check
    ) -> AsyncGenerator[memoryview, None]:
        """Yield the bytes of all reads, in order, in pieces. Close it: it holds slots."""
        coming = iter(reads)
        ahead = self._begun(caller, coming)
        try:
            while ahead is not None:
                chunk = await ahead
                ahead = None
                try:
                    ahead = self._begun(caller, coming)
                    await check()  # the key may have been erased after the bytes were read
                    for piece in _split(chunk):
                        yield piece
                finally:
                    del chunk
                    self._slots.give(caller)
        finally:
            if ahead is not None:
                await self._dropped(caller, ahead)

    async def zipped(self, caller: str, packed: Iterator[bytes]) -> AsyncGenerator[memoryview, None]:
        """Yield a zip, made in threads, in pieces. Close it: it holds a slot. Raises Busy (exports.limit)."""
        if not self._exports.take_now(caller):
            raise Busy(
                f"{EXPORTS_MOST} evidence copies are sent here at once, {EXPORTS_ONE} to one caller",
                code="exports.limit",
                hint="wait for one to end",
            )
        try:
            while some := await asyncio.to_thread(_some, packed):
                for piece in _split(some):
                    yield piece
        finally:
            self._exports.give(caller)

    async def lines(self, caller: str, lines: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """Yield lines, each with its end, in pieces. Close it: it holds a slot. Raises Busy (lists.limit)."""
        if not self._lists.take_now(caller):
            raise Busy(
                f"{LISTS_MOST} histories and audit chains are sent here at once, {LISTS_ONE} to one caller",
                code="lists.limit",
                hint="wait for one to end",
            )
        try:
            some = bytearray()
            async with aclosing(lines):
                async for line in lines:
                    some += line
                    some += b"\n"
                    if len(some) >= LINES_BYTES:
                        yield bytes(some)
                        some.clear()
            if some:
                yield bytes(some)
        finally:
            self._lists.give(caller)

    def _begun(self, caller: str, coming: "Iterable[Read]") -> "asyncio.Task[memoryview] | None":
        """Begin the next read; None: there is none."""
        read = next(iter(coming), None)
        return asyncio.create_task(self._read(caller, read)) if read is not None else None

    async def _read(self, caller: str, read: Read) -> memoryview:
        """The bytes of a chunk; its slot is held then."""
        await self._slots.take(caller)
        try:
            return await read()
        except BaseException:
            self._slots.give(caller)
            raise

    async def _dropped(self, caller: str, ahead: "asyncio.Task[memoryview]") -> None:
        """End a read that nobody waits for; its error is of no interest."""
        ahead.cancel()
        (found,) = await asyncio.gather(ahead, return_exceptions=True)
        if not isinstance(found, BaseException):
            self._slots.give(caller)


async def begun(pieces: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece, None]:
    """The same pieces, of which the first was made: its error still gets a status of its own."""
    first = await anext(pieces, None)

    async def all_of_them() -> AsyncGenerator[Piece, None]:
        async with aclosing(pieces):
            if first is not None:
                yield first
            async for piece in pieces:
                yield piece

    return all_of_them()


async def in_memory(body: bytes) -> AsyncGenerator[memoryview, None]:
    """The pieces of a body that is there already."""
    for piece in _split(memoryview(body)):
        yield piece


class Pieces(Response):
    """The answer with a body in pieces, which were begun. Its length, if known, is in the headers."""

    def __init__(
        self,
        pieces: AsyncGenerator[bytes | memoryview, None],
        status: int,
        headers: dict[str, str],
        media_type: str,
    ) -> None:
        self._pieces = pieces
        self.status_code, self.media_type, self.background = status, media_type, None
        self.init_headers(headers)
        self._left = int(self.headers.get("content-length", -1))
        """Bytes that are not sent; negative: unknown."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.create_task(_hung_up(receive))
        sending = asyncio.create_task(self._send(send, gone, scope.setdefault("state", {})))
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
            is_whole = sending.result() if sending.done() else self._left == 0
            if not is_whole:
                scope.setdefault("state", {}).setdefault(CUT_OFF, CUT_OFF)
        finally:
            sending.cancel()
            gone.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)
            await self._pieces.aclose()

    async def _send(self, send: Send, gone: "asyncio.Task[None]", state: MutableMapping[str, Any]) -> bool:
        """Whether all was sent."""
        clock = asyncio.get_running_loop().time
        check, checked_s = state.get(CHECK), clock()
        async with aclosing(self._pieces):
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            async for piece in self._pieces:
                if check is not None and clock() - checked_s >= CHECK_S:
                    try:
                        await check()
                    except LucidError as error:
                        log.info("download_ended", code=error.code)
                        state[CUT_OFF] = error.code
                        return False
                    checked_s = clock()
                try:
                    async with asyncio.timeout(PIECE_S):
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                except TimeoutError:
                    # The server closes the connection: fewer bytes came than Content-Length says.
                    log.info("download_cut_off", seconds=PIECE_S)
                    return False
                # The server takes bytes for a closed connection, too: let `gone` see first that it is closed.
                await asyncio.sleep(0)
                if gone.done():
                    return False
                self._left -= len(piece)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        return True


def cut_off(request: Request) -> str:
    """The code with which the answer to this request was cut off; empty: it came to its end."""
    code: str = getattr(request.state, CUT_OFF, "")
    return code


def check_while_sent(request: Request, check: Check) -> None:
    """Have the answer in pieces to this request end when `check` raises an error of ours."""
    setattr(request.state, CHECK, check)


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _split(body: memoryview) -> Iterator[memoryview]:
    for at in range(0, len(body), PIECE_BYTES):
        yield body[at : at + PIECE_BYTES]


def _some(packed: Iterator[bytes]) -> memoryview:
    """The next PIECE_BYTES or more of a zip; fewer at its end. Blocks."""
    some = bytearray()
    for data in packed:
        some += data
        if len(some) >= PIECE_BYTES:
            break
    return memoryview(some)
