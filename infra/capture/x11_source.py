"""Records one X11 display with ffmpeg, as a source of parts: one encoder after the other, each with its size.

1. Another part begins when the size changes (`resized`), when the caller asks (`cut`), and after an encoder
   that ended by itself (`encoder_exit`). All bytes of the former encoder come first.
2. If there was no picture for more than HOLE_S, or an encoder ended by itself, the next NewPart says for how
   long. If none comes any more, the part `no_picture` at the end says it.
3. If encoders end soon, the next one waits longer and longer. An encoder without a picture for STALL_S is
   ended.
4. The source ends when the display is gone, or on `stop`. If no encoder gives pictures for LIVES_S during
   GIVE_UP_S, the source breaks off: Unavailable (capture.failed, display.size).
5. The encoder reads the cookie of the display in a private file, which is removed when the source ends.
6. An encoder of root has no network and no shared memory: so the cookie goes only to the socket in SOCKETS,
   and no picture lies in a segment that every user may read.
7. Key strokes are never captured.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, suppress
from pathlib import Path

from infra.capture.ffmpeg import Capture, encoder_arguments
from infra.capture.x11_cookie import written_cookie
from infra.capture.x11_display import Display, Size, X11Display, check_size, watched_display
from schemas.errors import Unavailable
from schemas.ports.processes import NewPart, Picture

RESIZED, ENCODER_EXIT, NO_PICTURE = "resized", "encoder_exit", "no_picture"
"""Reasons of a part."""
SETTLE_S, SETTLE_MOST_S = 0.25, 2.0
"""A person who drags a border changes the size many times: the next encoder waits until it rests so long."""
RETRY_S, RETRY_MOST_S = 0.1, 5.0
"""Between two encoders that end by themselves; each time twice as long, up to the most."""
LIVES_S, GIVE_UP_S = 5.0, 60.0
HOLE_S = 3.0
"""From the end of one movie fragment to the end of the next one, each of a second."""
STALL_S = 15.0
HEADER_MOST = 1 << 20
"""Bytes of a film before its first movie fragment; it has about 1 KB."""
ALONE = (
    *("unshare", "--net", "--ipc", "--", "sh", "-c"),
    *('echo 0 > /proc/sys/kernel/shmmni && exec "$@"', "sh"),
)
"""Without a network there are no abstract sockets of this host. The encoder is refused shared memory.
It reads its pictures from the socket. A segment in a space of its own would not do: the display would take
its id for one of another program."""


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
    ) -> AsyncGenerator[bytes | NewPart, None]:
        clock = asyncio.get_running_loop().time
        reasons: list[str] = []
        shown_s = lived_s = clock()
        failed, wait_s = False, RETRY_S
        failure: Unavailable | None = None
        while not (self._stopped or display.is_gone or (failure and clock() - lived_s > GIVE_UP_S)):
            self._news.clear()  # before size and cuts are read: another one after that ends the encoder
            size, began_s, failure = display.size, clock(), None
            reasons, self._cuts = reasons + self._cuts, []
            try:
                check_size(size)
                async with aclosing(self._encoded(size, environment)) as blocks:
                    async for block in blocks:
                        for new in _parts_after(reasons, clock() - shown_s, failed):
                            yield new
                        reasons, failed = [], False
                        yield block
                        shown_s = clock()
            except Unavailable as error:
                failure = error
            if shown_s - began_s >= LIVES_S:
                lived_s, wait_s = clock(), RETRY_S
            found = await self._next_reason(display, size)
            if self._stopped:
                break
            if (found == RESIZED and found not in reasons) or (found and not (self._cuts or reasons)):
                reasons.append(found)
            if found and not self._cuts:
                failed = failed or found == ENCODER_EXIT
                failure = failure or Unavailable("the encoder ends again and again", code="capture.failed")
                if failed or clock() - began_s < LIVES_S:
                    await self._pause(display, wait_s)
                    wait_s = min(2 * wait_s, RETRY_MOST_S)
        lost_s = clock() - shown_s
        reasons = reasons + self._cuts or ([NO_PICTURE] if lost_s > HOLE_S else [])
        for new in _parts_after(reasons, lost_s, failed):
            yield new
        if failure is not None and not (self._stopped or display.is_gone):
            raise failure

    async def _encoded(self, size: Size, environment: dict[str, str]) -> AsyncGenerator[bytes, None]:
        """Yield the film of one encoder; nothing, if it has no picture. Raises Unavailable (capture.*)."""
        launcher = ALONE if os.geteuid() == 0 else ()
        async with await Capture.start(self._arguments(size), environment, launcher) as capture:
            ending = asyncio.create_task(self._end(capture))
            blocks, held, has_picture = aiter(capture), b"", False
            try:
                while True:
                    async with asyncio.timeout(STALL_S):
                        block = await anext(blocks, b"")
                    if not block:
                        return
                    held += block
                    has_picture = has_picture or b"moof" in held or len(held) > HEADER_MOST
                    if has_picture:
                        yield held
                        held = b""
            except TimeoutError:
                raise Unavailable("the encoder gives no picture", code="capture.failed") from None
            finally:
                ending.cancel()

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

    async def _pause(self, display: X11Display, seconds: float) -> None:
        """Wait so long, or until `stop`, `cut` or the end of the display. No resize shortens it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not (self._stopped or self._cuts or display.is_gone):
                    self._news.clear()
                    await self._news.wait()

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


def _parts_after(reasons: list[str], lost_s: float, failed: bool) -> Iterator[NewPart]:
    """The parts that begin now. The first one declares a hole. lost_s: time since the last picture."""
    for number, reason in enumerate(reasons):
        yield NewPart(reason, lost_s if number == 0 and (failed or lost_s > HOLE_S) else 0)
