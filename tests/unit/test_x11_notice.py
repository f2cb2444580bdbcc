"""A notice on a real display, read by a reader of print in the recording of that display."""

import asyncio
import subprocess
from pathlib import Path

import pytest

from infra.capture import x11_notice
from infra.capture.ffmpeg import encode
from infra.capture.x11_cookie import written_cookie
from infra.capture.x11_display import Display
from infra.capture.x11_notice import fits_notice, show_notice
from schemas.errors import Unavailable
from tests.support.machine.waiting import PATIENCE_S
from tests.support.machine.x_display import COOKIE, Person, program, xvfb

TEXT = "This session is recorded. The recording is kept as evidence.\n\nAsk the office (d\u00fcrfen \u2713)."


def text_on(number: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The text that a reader of print finds on the display."""
    known = folder / "reader"
    known.write_bytes(written_cookie(number, COOKIE))
    monkeypatch.setenv("XAUTHORITY", str(known))
    grab = ("-f", "x11grab", "-i", f":{number}", "-frames:v", "1", "-vf", "scale=iw*3:-1")
    picture = encode([*grab, "-f", "image2pipe", "-c:v", "png", "pipe:1"])
    command = [program("tesseract"), "-", "-", "--psm", "11"]
    return subprocess.run(command, input=picture, check=True, capture_output=True).stdout.decode()


async def test_a_notice_is_on_the_display_until_it_is_clicked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a person is recorded, and nobody has told them; or the notice never goes away."""
    program("tesseract")
    with xvfb(tmp_path) as number:
        person = Person(tmp_path, number)
        display, visible = Display(number, COOKIE), asyncio.Event()
        notice = asyncio.create_task(show_notice(display, TEXT, PATIENCE_S, visible.set))

        async def seen() -> str:
            return await asyncio.to_thread(text_on, number, tmp_path, monkeypatch)

        async with asyncio.timeout(PATIENCE_S):
            await visible.wait()
            while "session is recorded" not in await seen():
                assert not notice.done()
            await asyncio.to_thread(person.run, "xdotool", "mousemove", "100", "70", "click", "1")
            await notice
            while "recorded" in await seen():
                pass


async def test_a_notice_that_nobody_clicks_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: a session in which nobody clicks is never told as shown."""
    monkeypatch.setattr(x11_notice, "SEEN_S", 0.1)
    monkeypatch.setattr(x11_notice, "RAISE_S", 0.1)
    visible = asyncio.Event()
    with xvfb(tmp_path) as number:
        async with asyncio.timeout(PATIENCE_S):
            await show_notice(Display(number, COOKIE), "x\n" * 30, 3.0, visible.set)
    assert visible.is_set()


@pytest.mark.parametrize(
    ("text", "fits"),
    [("d\u00fcrfen\n" * 30, True), ("x\n" * 31, False), ("\u2713", False), ("x" * 3000, False)],
)
def test_only_a_text_that_is_shown_whole_is_a_notice(text: str, fits: bool) -> None:
    """Breaks: the evidence names a text of which the person saw the beginning, or question marks."""
    assert fits_notice(text) == fits


async def test_a_notice_that_was_gone_at_once_was_not_shown(tmp_path: Path) -> None:
    """Breaks: the evidence says that a person was told, and the text was there for a moment only."""
    visible = asyncio.Event()
    with xvfb(tmp_path) as number:
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(Unavailable) as gone:
                await show_notice(Display(number, COOKIE), TEXT, 0.3, visible.set)
    assert (gone.value.code, visible.is_set()) == ("display.notice", False)


async def test_a_display_that_ends_ends_its_notice(tmp_path: Path) -> None:
    """Breaks: a person logs off during a notice, and the agent keeps a connection for ever."""
    with xvfb(tmp_path) as number:
        visible = asyncio.Event()
        showing = show_notice(Display(number, COOKIE), TEXT, PATIENCE_S, visible.set)
        notice = asyncio.create_task(showing)
        async with asyncio.timeout(PATIENCE_S):
            await visible.wait()
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(notice, return_exceptions=True)
