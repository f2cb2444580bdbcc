"""Shows a text to the person in front of a display, in a window of our own that stays on top.

1. The window has a connection of its own: no program of the person can leave it out. The recording shows it.
2. It counts as shown after SEEN_S on the display, or on a click. Events that a program made up are ignored.
   A program of the person can click it, too, or hide it: that is not noticed.
3. It ends on a click, or after its time. It takes no key: key strokes go where they went before.
4. The font is the one that every X server has built in, so letters are those of Latin-1; others become `?`.

Source: X Window System Protocol (X11R7.7), appendix B.
"""

import asyncio
import contextlib
import struct
import textwrap
from collections.abc import Callable

from infra.capture.x11_display import Display, Screen, connection, padded
from schemas.errors import Unavailable

CREATE_WINDOW, DESTROY_WINDOW, MAP_WINDOW, CONFIGURE_WINDOW = 1, 4, 8, 12
OPEN_FONT, CREATE_GC, IMAGE_TEXT = 45, 55, 76
BACK_PIXEL, OVERRIDE_REDIRECT, EVENT_MASK = 0x2, 0x200, 0x800
BUTTON_PRESS_MASK, EXPOSURE_MASK = 0x4, 0x8000
BUTTON_PRESS, EXPOSE = 4, 12
FOREGROUND, BACKGROUND, FONT = 0x4, 0x8, 0x4000
STACK_MODE, ABOVE = 0x40, 0
FONT_NAME = b"fixed"
LETTER, LINE, BORDER, MARGIN = 6, 16, 4, 20
"""Pixels: width of a letter, height of a line, border of the window, space inside it."""
COLUMNS, LINES_MOST = 76, 30
SEEN_S = 2.0
RAISE_S = 1.0
"""A window that opens later hides it for at most so long."""


async def show_notice(display: Display, text: str, seconds: float, shown: Callable[[], None]) -> None:
    """Show the text until a click, or for so long. shown: called once it counts as shown.

    Raises as `watched_display`; Unavailable (display.notice): it was gone before it counted as shown.
    """
    seen = _Seen(shown)
    async with connection(display) as (reader, writer, screen):
        window, font, pen = (screen.first_id + number for number in range(3))
        lines = _lines(text)
        writer.write(_opened(screen, window, font, pen, lines))
        with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError, OSError):
            async with asyncio.timeout(seconds):
                await _until_clicked(reader, writer, window, _drawn(window, pen, lines), seen)
        writer.write(struct.pack("<BxHI", DESTROY_WINDOW, 2, window))
        with contextlib.suppress(OSError):
            await writer.drain()
    if not seen.counts:
        raise Unavailable("the notice was gone before anybody could read it", code="display.notice")


class _Seen:
    """Whether the notice counts as shown."""

    def __init__(self, shown: Callable[[], None]) -> None:
        self.counts = False
        self._shown, self._since_s = shown, 0.0

    def drawn(self, now_s: float) -> None:
        """It is on the display now."""
        self._since_s = self._since_s or now_s

    def passes(self, now_s: float) -> None:
        """It is on the display still."""
        if self._since_s and now_s - self._since_s >= SEEN_S:
            self.clicked()

    def clicked(self) -> None:
        if self._since_s and not self.counts:
            self.counts = True
            self._shown()


async def _until_clicked(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, window: int, drawn: bytes, seen: _Seen
) -> None:
    clock = asyncio.get_running_loop().time
    on_top = struct.pack("<BxHIHxxI", CONFIGURE_WINDOW, 4, window, STACK_MODE, ABOVE)
    coming = asyncio.ensure_future(reader.readexactly(32))
    try:
        while True:
            if not (await asyncio.wait({coming}, timeout=RAISE_S))[0]:
                writer.write(on_top + drawn)
                seen.passes(clock())
                continue
            kind = coming.result()[0]  # with 0x80 a program has sent it
            if kind == BUTTON_PRESS:
                seen.clicked()
                return
            if kind == EXPOSE:
                writer.write(drawn)
                seen.drawn(clock())
            coming = asyncio.ensure_future(reader.readexactly(32))
    finally:
        coming.cancel()


def fits_notice(text: str) -> bool:
    """Return whether a notice shows the whole text as it is."""
    return len(_wrapped(text)) <= LINES_MOST and text.encode("latin-1", "replace").decode("latin-1") == text


def _lines(text: str) -> list[bytes]:
    """The text in lines that fit."""
    return [line.encode("latin-1", "replace") for line in _wrapped(text)[:LINES_MOST]]


def _wrapped(text: str) -> list[str]:
    return [line for part in text.splitlines() for line in textwrap.wrap(part, COLUMNS) or [""]]


def _opened(screen: Screen, window: int, font: int, pen: int, lines: list[bytes]) -> bytes:
    """The requests that make window, font and pen, and show the window."""
    width, height = COLUMNS * LETTER + 2 * MARGIN, len(lines) * LINE + 2 * MARGIN
    mask = BACK_PIXEL | OVERRIDE_REDIRECT | EVENT_MASK
    values = struct.pack("<III", screen.white, 1, BUTTON_PRESS_MASK | EXPOSURE_MASK)
    place = struct.pack("<hhHHHHII", 40, 40, width, height, BORDER, 1, 0, mask)
    return b"".join(
        [
            struct.pack("<BBHII", CREATE_WINDOW, 0, 8 + 3, window, screen.root) + place + values,
            struct.pack("<BxHIHxx", OPEN_FONT, 3 + len(padded(FONT_NAME)) // 4, font, len(FONT_NAME)),
            padded(FONT_NAME),
            struct.pack("<BxHIII", CREATE_GC, 4 + 3, pen, window, FOREGROUND | BACKGROUND | FONT),
            struct.pack("<III", screen.black, screen.white, font),
            struct.pack("<BxHI", MAP_WINDOW, 2, window),
        ]
    )


def _drawn(window: int, pen: int, lines: list[bytes]) -> bytes:
    """The requests that write the lines."""
    found = []
    for number, line in enumerate(lines):
        place = struct.pack("<IIhh", window, pen, MARGIN, MARGIN + (number + 1) * LINE - LINE // 4)
        head = struct.pack("<BBH", IMAGE_TEXT, len(line), 4 + len(padded(line)) // 4)
        found.append(head + place + padded(line))
    return b"".join(found)
