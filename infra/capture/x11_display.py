"""Watches the size of one X11 display: it connects, asks for the root window, and hears of every change.

1. The display belongs to somebody else. An answer may take ANSWER_S, and the socket must lead to a process
   of the expected user. Other programs may send events in the name of the display. Those are ignored, and
   every other event only makes us ask.
2. No key stroke can be heard: the only selected events are changes of the root window's structure.
3. This module speaks the wire itself, because it needs five messages and must never block the event loop.

Source: X Window System Protocol (X11R7.7), appendix B (encoding).
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from infra.capture.x11_cookie import COOKIE_NAME
from schemas.errors import Denied, Unavailable

SOCKETS = Path("/tmp/.X11-unix")
ANSWER_S = 5.0
"""A display that has not answered by then hangs."""
SETUP_MOST = 4 * 0xFFFF
EXTRA_MOST = 1 << 20
"""Bytes behind the first 32 of an answer or event; none that we ask for has more than a few."""
SMALLEST, LARGEST, PIXELS_MOST = 16, 16_384, 7680 * 4320
"""Of each side, and of the whole: three screens of 4K fit. Another size cannot be recorded now."""

CHANGE_WINDOW_ATTRIBUTES, GET_GEOMETRY = 2, 14
EVENT_MASK, STRUCTURE_NOTIFY = 0x0800, 0x0002_0000
REPLY, CONFIGURE_NOTIFY, GENERIC_EVENT = 1, 22, 35
HEADER = struct.Struct("<BBHHH")
SCREEN = struct.Struct("<I4xII")
"""Root window, white, black."""
CREDENTIALS = struct.Struct("3i")


class Size(NamedTuple):
    """Of a display, in pixels."""

    width: int
    height: int


class Screen(NamedTuple):
    """The first screen of a display, and the first id that we may give to something of ours."""

    root: int
    white: int
    black: int
    first_id: int


@dataclass(frozen=True, slots=True)
class Display:
    """A display to record."""

    number: int
    cookie: bytes = field(default=b"", repr=False)
    """Of MIT-MAGIC-COOKIE-1; empty: the display asks for none."""
    uid: int | None = None
    """The display must be a process of this user; None: of any."""


class X11Display:
    """One connection to a display."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, root: int, news: asyncio.Event
    ) -> None:
        """news: set whenever the size has changed or the display is gone."""
        self.size = Size(0, 0)
        """The last size that the display told."""
        self.is_gone = False
        """The display has ended, or it sends nonsense."""
        self._reader, self._writer, self._root, self._news = reader, writer, root, news
        self._asked = self._asks_again = False
        """Our question has no answer yet; another one is to follow it. There is never more than one."""
        self._answered = asyncio.Event()
        """Set also when no answer can come any more."""

    async def ask_size(self) -> Size:
        """Return the size of now. Raises Unavailable (display.gone, display.silent)."""
        if self.is_gone:
            raise _gone("it has ended")
        self._answered.clear()
        self._ask()
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._answered.wait()
        except TimeoutError:
            raise _silent() from None
        if self.is_gone:
            raise _gone("it has ended")
        return self.size

    async def listen(self) -> None:
        """Take answers and events until the display is gone."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, Unavailable):
            events = EVENT_MASK, STRUCTURE_NOTIFY
            self._writer.write(struct.pack("<BxHIII", CHANGE_WINDOW_ATTRIBUTES, 4, self._root, *events))
            while True:
                self._take(await self._message())
        self.is_gone = True
        self._answered.set()
        self._news.set()

    async def _message(self) -> bytes:
        message = await self._reader.readexactly(32)
        if message[0] & 0x7F in (REPLY, GENERIC_EVENT):
            extra = 4 * int.from_bytes(message[4:8], "little")
            if extra > EXTRA_MOST:
                raise _gone("its answer is too long")
            await self._reader.readexactly(extra)
        return message

    def _take(self, message: bytes) -> None:
        if message[0] == REPLY:  # of GetGeometry: depth, sequence, length, root, x, y, width, height
            size = Size(*struct.unpack_from("<HH", message, 16))
            if size != self.size:
                self.size = size
                self._news.set()
            self._asked = False
            if self._asks_again:
                self._ask()
            else:
                self._answered.set()
        elif message[0] == CONFIGURE_NOTIFY:  # with 0x80 a program has sent it
            self._ask()

    def _ask(self) -> None:
        self._asks_again = self._asked
        if not self._asked:
            self._asked = True
            self._writer.write(struct.pack("<BxHI", GET_GEOMETRY, 2, self._root))


@asynccontextmanager
async def watched_display(display: Display, news: asyncio.Event) -> AsyncIterator[X11Display]:
    """A connection to the display, closed afterwards; its size is known.

    news: set whenever the size has changed or the display is gone.
    Raises Unavailable (display.gone, display.silent), Denied (display.refused, display.foreign).
    """
    async with connection(display) as (reader, writer, screen):
        watched = X11Display(reader, writer, screen.root, news)
        listening = asyncio.create_task(watched.listen())
        try:
            await watched.ask_size()
            yield watched
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


@asynccontextmanager
async def connection(
    display: Display,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, Screen]]:
    """A connection to the display, set up, and closed afterwards. Raises as `watched_display`."""
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_unix_connection(SOCKETS / f"X{display.number}")
    except TimeoutError:
        raise _silent() from None
    except OSError as error:
        raise _gone(error.strerror or str(error)) from None
    try:
        _check_owner(writer.get_extra_info("socket"), display)
        try:
            async with asyncio.timeout(ANSWER_S):
                screen = await _set_up(reader, writer, display.cookie)
        except TimeoutError:
            raise _silent() from None
        except (OSError, asyncio.IncompleteReadError):
            raise _gone("it ended while it was asked") from None
        yield reader, writer, screen
    finally:
        writer.close()


def _check_owner(sock: socket.socket, display: Display) -> None:
    _, found, _ = CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
    if display.uid is not None and found != display.uid:
        text = f"display :{display.number} is a process of user {found}, not of user {display.uid}"
        raise Denied(text, code="display.foreign")


async def _set_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cookie: bytes) -> Screen:
    """Introduce us, and return the first screen."""
    name = COOKIE_NAME if cookie else b""
    hello = struct.pack("<cxHHHHxx", b"l", 11, 0, len(name), len(cookie))
    writer.write(hello + padded(name) + padded(cookie))
    status, reason, _, _, words = HEADER.unpack(await reader.readexactly(HEADER.size))
    if 4 * words > SETUP_MOST:
        raise _gone("its answer is too long")
    body = await reader.readexactly(4 * words)
    if status != 1:
        text = body[:reason].decode("latin-1", "replace").strip() or "no reason"
        raise Denied(f"the display refused us: {text}", code="display.refused")
    try:
        vendor, formats = int.from_bytes(body[16:18], "little"), body[21]
        root, white, black = SCREEN.unpack_from(body, 32 + vendor + -vendor % 4 + 8 * formats)
    except (struct.error, IndexError):
        raise _gone("its answer is too short") from None
    return Screen(root, white, black, int.from_bytes(body[4:8], "little"))


def check_size(size: Size) -> None:
    """Raises Unavailable (display.size): it cannot be recorded."""
    if min(size) < SMALLEST or max(size) > LARGEST or size.width * size.height > PIXELS_MOST:
        raise Unavailable(f"a display of {size.width}x{size.height} cannot be recorded", code="display.size")


def _silent() -> Unavailable:
    return Unavailable(f"the display does not answer within {ANSWER_S:.0f} s", code="display.silent")


def _gone(why: str) -> Unavailable:
    return Unavailable(f"there is no display to record: {why}", code="display.gone")


def padded(text: bytes) -> bytes:
    """Return the text with zero bytes up to a multiple of four."""
    return text + bytes(-len(text) % 4)
