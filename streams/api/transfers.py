"""Sends long bodies in pieces, with bounded memory: chunks take turns, slow callers are cut off.

1. A chunk in memory holds a slot, from the reading of its bytes until the last of them is sent. The next
   chunk of a transfer is read meanwhile, in a slot of its own.
2. A process has CHUNKS_MOST slots, a caller ONE_CALLER of them. Transfers beyond that wait for a turn.
3. A caller that does not take PIECE_BYTES in PIECE_S is cut off, and so is one that has hung up: nothing is
   read for it any more.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from schemas.config.logs import logger
from streams.scheduling.fair_slots import FairSlots

CHUNKS_MOST, ONE_CALLER = 16, 8
"""Chunks in memory: 10 MiB each, unless CHUNK_SIZE_MB is larger."""
PIECE_BYTES = 1 << 20
PIECE_S = 20.0
"""52 kB/s: less than a third of a recording at 1.2 Mbit/s."""

Read = Callable[[], Awaitable[memoryview]]
"""Reads the bytes of one chunk."""
Check = Callable[[], Awaitable[object]]
"""Raises an error if bytes that were read must not leave any more."""

log = logger("lucid.api")


class Transfers:
    """The slots of one process."""

    def __init__(self) -> None:
        self._slots = FairSlots(CHUNKS_MOST, ONE_CALLER)

    @property
    def held(self) -> int:
        """Chunks in memory."""
        return self._slots.used

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
                    for at in range(0, len(chunk), PIECE_BYTES):
                        yield chunk[at : at + PIECE_BYTES]
                finally:
                    del chunk
                    self._slots.give(caller)
        finally:
            if ahead is not None:
                await self._dropped(caller, ahead)

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


class Pieces(Response):
    """The answer with a body in pieces, which were begun. Its length is in the headers."""

    def __init__(
        self,
        pieces: AsyncGenerator[memoryview, None],
        status: int,
        headers: dict[str, str],
        media_type: str,
    ) -> None:
        self._pieces = pieces
        self.status_code, self.media_type, self.background = status, media_type, None
        self.init_headers(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._send(send))
        gone = asyncio.create_task(_hung_up(receive))
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            sending.cancel()
            gone.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        async with aclosing(self._pieces):
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            async for piece in self._pieces:
                try:
                    async with asyncio.timeout(PIECE_S):
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                except TimeoutError:
                    # The server closes the connection: fewer bytes came than Content-Length says.
                    log.info("download_cut_off", seconds=PIECE_S)
                    return
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
