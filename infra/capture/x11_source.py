"""Records one X11 display with ffmpeg, as a source of parts: one encoder after the other, each with its size.

1. Another part begins when the size changes (`resized`), when the caller asks (`cut`), and after an encoder
   that ended by itself (`encoder_exit`). All bytes of the former encoder come first.
2. If an encoder ended by itself, the next NewPart says for how long there was no picture. Otherwise another
   part begins as soon as its encoder runs, within a second.
3. The source ends when the display is gone, or on `stop`. An encoder that ends does not end it. If no encoder
   lives for LIVES_S during GIVE_UP_S, the source breaks off: Unavailable (capture.failed).
4. The encoder reads the cookie of the display in a private file, which is removed when the source ends.
5. Key strokes are never captured.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from infra.capture.ffmpeg import Capture, encoder_arguments
from infra.capture.x11_display import Display, Size, X11Display, watched_display, written_cookie
from schemas.errors import Unavailable
from schemas.ports.processes import NewPart, Picture

RESIZED, ENCODER_EXIT = "resized", "encoder_exit"
"""Reasons of a part."""
SETTLE_S, SETTLE_MOST_S = 0.25, 2.0
"""A person who drags a border changes the size many times: the next encoder waits until it rests so long."""
RETRY_S, RETRY_MOST_S = 0.1, 5.0
"""Between two encoders that end by themselves; each time twice as long, up to the most."""
LIVES_S, GIVE_UP_S = 5.0, 60.0


class X11Source:
    """The source of one display. `cut` begins another part."""

    def __init__(self, display: Display, picture: Picture) -> None:
        """picture: its size is not used, because the display has one."""
        self._display, self._picture = display, picture
        self._stopped = False
        self._cuts: list[str] = []
        """Reasons of the parts that the caller asked for, and that have not begun."""
        self._news = asyncio.Event()
        """Set when the encoder is to end: `stop`, `cut`, another size, or the display is gone."""

    def stop(self) -> None:
        self._stopped = True
        self._news.set()

    def cut(self, reason: str) -> None:
        """Begin another part soon. reason: a label. Each call makes a part, if only an empty one."""
        self._cuts.append(reason)
        self._news.set()

    async def __aiter__(self) -> AsyncIterator[bytes | NewPart]:
        """Yield the parts. Raises Unavailable (display.*, capture.*), Denied (display.*)."""
        folder = Path(tempfile.mkdtemp(prefix="lucid-display-"))
        try:
            cookie = folder / "xauthority"
            cookie.write_bytes(written_cookie(self._display.number, self._display.cookie))
            async with watched_display(self._display, self._news) as display:
                async for block in self._parts(display, {**os.environ, "XAUTHORITY": str(cookie)}):
                    yield block
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def _parts(
        self, display: X11Display, environment: dict[str, str]
    ) -> AsyncIterator[bytes | NewPart]:
        clock = asyncio.get_running_loop().time
        reasons: list[str] = []
        failed, ended_s, lived_s, wait_s = False, 0.0, clock(), RETRY_S
        while not (self._stopped or display.is_gone):
            self._news.clear()  # before size and cuts are read: another one after that ends the encoder
            size, began_s, failure = display.size, clock(), None
            reasons, self._cuts = reasons + self._cuts, []
            try:
                async with await Capture.start(self._arguments(size), environment) as capture:
                    ending = asyncio.create_task(self._end(capture))
                    try:
                        async for block in capture:
                            for reason in reasons:
                                yield NewPart(reason, clock() - ended_s if failed else 0)
                                failed = False
                            reasons = []
                            yield block
                    finally:
                        ending.cancel()
            except Unavailable as error:
                failure = error
            if not reasons:
                ended_s = clock()
            if clock() - began_s >= LIVES_S:
                lived_s, wait_s = clock(), RETRY_S
            found = await self._next_reason(display, size)
            if (found == RESIZED and found not in reasons) or (found and not (self._cuts or reasons)):
                reasons.append(found)
            if found == ENCODER_EXIT and not (self._cuts or self._stopped):
                failed = True
                if clock() - lived_s > GIVE_UP_S:
                    raise failure or Unavailable("the encoder ends again and again", code="capture.failed")
                await self._pause(wait_s)
                wait_s = min(2 * wait_s, RETRY_MOST_S)

    async def _end(self, capture: Capture) -> None:
        await self._news.wait()
        capture.stop()

    async def _next_reason(self, display: X11Display, size: Size) -> str:
        """Return why the next part begins; empty: the display is gone. size: of the encoder that ended."""
        clock = asyncio.get_running_loop().time
        try:
            until_s = clock() + SETTLE_MOST_S
            now = await display.ask_size()
            while now != size and clock() < until_s and not self._stopped:
                before = now
                await asyncio.sleep(SETTLE_S)
                now = await display.ask_size()
                if now == before:
                    break
        except Unavailable:  # gone: the loop ends; silent: the next encoder tells
            return "" if display.is_gone else ENCODER_EXIT
        return RESIZED if now != size else ENCODER_EXIT

    async def _pause(self, seconds: float) -> None:
        """Wait so long, or until something happens to the display."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return

    def _arguments(self, size: Size) -> list[str]:
        picture = self._picture
        grab = (
            "-f",
            "x11grab",
            "-framerate",
            str(picture.frame_rate),
            "-draw_mouse",
            str(int(picture.cursor)),
        )
        odd = size.width % 2 or size.height % 2  # H.264 halves the colours
        return [
            *(*grab, "-video_size", f"{size.width}x{size.height}", "-i", f":{self._display.number}"),
            *(("-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2") if odd else ()),
            *(*encoder_arguments(picture), "pipe:1"),
        ]
