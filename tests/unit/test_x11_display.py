"""The connection to an X11 display: a real display, and displays that lie."""

import asyncio
import os
import struct
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from infra.capture import x11_cookie, x11_display
from infra.capture.x11_cookie import read_cookie, written_cookie
from infra.capture.x11_display import Display, Size, check_size, watched_display
from schemas.errors import LucidError, Unavailable
from tests.support.machine.absent import absent
from tests.support.machine.waiting import PATIENCE_S
from tests.support.machine.x_display import COOKIE, Person, xvfb

Answers = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def test_the_size_of_a_display_is_known_before_and_after_it_changes(tmp_path: Path) -> None:
    """Breaks: a display that grows is recorded without its right and lower edge."""
    news = asyncio.Event()
    with xvfb(tmp_path) as number:
        person = Person(tmp_path, number)
        async with (
            asyncio.timeout(PATIENCE_S),
            watched_display(Display(number, COOKIE, os.getuid()), news) as display,
        ):
            assert display.size == await display.ask_size() == Size(1024, 768)
            for size in (Size(640, 480), Size(801, 601)):
                await asyncio.to_thread(person.resize, f"{size.width}x{size.height}")
                while display.size != size:
                    news.clear()
                    await news.wait()
            assert not display.is_gone


async def test_the_end_of_a_display_is_heard(tmp_path: Path) -> None:
    """Breaks: a person logs off, and the recording waits for a display that never comes back."""
    news = asyncio.Event()
    with xvfb(tmp_path) as number:
        watching = watched_display(Display(number, COOKIE), news)
        display = await watching.__aenter__()
    async with asyncio.timeout(PATIENCE_S):
        while not display.is_gone:
            news.clear()
            await news.wait()
        with pytest.raises(Unavailable, match=r"it has ended"):
            await display.ask_size()
        await watching.__aexit__(None, None, None)


async def code_of(display: Display) -> str:
    """The code of the refusal; empty: there was none."""
    try:
        async with watched_display(display, asyncio.Event()):
            return ""
    except LucidError as error:
        return error.code


async def test_a_display_that_is_not_ours_to_record_is_refused(tmp_path: Path) -> None:
    """Breaks: a person who takes the number of somebody's display is recorded under that name."""
    with xvfb(tmp_path) as number:
        codes = [await code_of(Display(number + 1000, COOKIE)), await code_of(Display(number, bytes(16)))]
        codes.append(await code_of(Display(number, COOKIE, os.getuid() + 1)))
    assert codes == ["display.gone", "display.refused", "display.foreign"]


@asynccontextmanager
async def pretended(
    monkeypatch: pytest.MonkeyPatch, folder: Path, answers: Answers
) -> AsyncIterator[Display]:
    """A display :7 that answers as it likes."""
    monkeypatch.setattr(x11_display, "SOCKETS", folder)
    monkeypatch.setattr(x11_display, "ANSWER_S", 0.2)
    async with await asyncio.start_unix_server(answers, folder / "X7"):
        yield Display(7)


def setup(width: int = 640, height: int = 480) -> bytes:
    """The answer of a display without a vendor and without formats."""
    screen = struct.pack("<5I2H", 0x123, 0, 0, 0, 0, width, height)
    body = bytes(32) + screen
    return struct.pack("<BBHHH", 1, 0, 11, 0, len(body) // 4) + body


def geometry(width: int, height: int, words: int = 0) -> bytes:
    return struct.pack("<BBHIIhhHH", 1, 24, 1, words, 0x123, 0, 0, width, height).ljust(32, b"\0")


LIES = {
    "silence": (b"", "display.silent"),
    "no words": (b"\1", "display.gone"),
    "a short setup": (struct.pack("<BBHHH", 1, 0, 11, 0, 5) + bytes(20), "display.gone"),
    "a vendor beyond its end": (setup().replace(bytes(18), bytes(16) + b"\xff\xff", 1), "display.gone"),
    "an enormous screen": (setup(60_000, 60_000), "display.silent"),
    "refused": (struct.pack("<BBHHH", 0, 4, 11, 0, 1) + b"no\xff\0", "display.refused"),
    "no size": (setup(), "display.silent"),
    "an endless answer": (setup() + geometry(640, 480, 0xFFFF_FFFF), "display.gone"),
    "a size": (setup() + geometry(640, 480), ""),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_display_that_lies_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    """Breaks: one hostile session takes the memory of the agent, or stops the recordings of all others."""
    said, code = LIES[lie]

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        if "no words" in lie:
            writer.close()
        await reader.read()  # until the other end has gone
        writer.close()

    async with asyncio.timeout(PATIENCE_S), pretended(monkeypatch, tmp_path, answers) as display:
        assert await code_of(display) == code


def cookie_in(file: Path, number: int) -> bytes:
    return read_cookie(file, number, os.geteuid(), os.getegid())


def test_a_cookie_is_found_among_those_of_other_displays(tmp_path: Path) -> None:
    """Breaks: a person with two sessions is recorded in one of them only."""
    file = tmp_path / "Xauthority"
    file.write_bytes(written_cookie(1, b"one") + written_cookie(10, b"ten") + written_cookie(2, b"two"))
    assert [cookie_in(file, number) for number in (1, 10, 2, 3)] == [b"one", b"ten", b"two", b""]


@pytest.mark.parametrize("broken", [b"\xff", b"\xff\xff\0", b"\xff\xff\xff\xff", bytes(1 << 16)])
def test_a_broken_file_holds_no_cookie(tmp_path: Path, broken: bytes) -> None:
    """Breaks: a file that a person wrote stops the agent."""
    file = tmp_path / "Xauthority"
    file.write_bytes(broken)
    assert cookie_in(file, 1) == b""


@pytest.mark.parametrize("kind", ["absent", "pipe", "folder"])
def test_a_cookie_that_is_no_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Breaks: a person makes the agent wait for ever."""
    monkeypatch.setattr(x11_cookie, "READ_S", 0.5)
    file = tmp_path / "Xauthority"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    with pytest.raises(Unavailable) as refused:
        cookie_in(file, 1)
    assert refused.value.code == "display.cookie"


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_cookie_is_read_with_the_rights_of_its_person(tmp_path: Path, kind: str) -> None:
    """Breaks: a person names a file of root, and the agent, which may read everything, reads it."""
    if os.geteuid() != 0:
        absent("the rights of somebody else", "run as root")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        file = secret = Path(folder) / "secret"
        secret.write_bytes(written_cookie(1, b"one"))
        secret.chmod(0o600)
        if kind == "link":
            file = Path(folder) / "Xauthority"
            file.symlink_to(secret)
        with pytest.raises(Unavailable) as refused:
            read_cookie(file, 1, 4_000_000, 4_000_000)
        assert refused.value.code == "display.cookie"
        os.chown(secret, 4_000_000, -1)
        assert read_cookie(file, 1, 4_000_000, 4_000_000) == b"one"


async def test_an_event_that_a_program_made_up_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: one event of a program of the person ends the recording of their session."""
    told = asyncio.Event()

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(64)
        writer.write(setup() + geometry(640, 480))
        await told.wait()
        for sent in (0x80, 0):  # made up by a program, and by the display
            writer.write(
                struct.pack("<BxHIIIhhHH", 22 | sent, 1, 0x123, 0x123, 0, 0, 0, 9999, 9999).ljust(32, b"\0")
            )
        await reader.read(64)
        writer.write(geometry(800, 600))
        await reader.read()
        writer.close()

    news = asyncio.Event()
    async with (
        asyncio.timeout(PATIENCE_S),
        pretended(monkeypatch, tmp_path, answers) as number,
        watched_display(number, news) as display,
    ):
        news.clear()
        told.set()
        await news.wait()
        assert (display.size, display.is_gone) == (Size(800, 600), False)


@pytest.mark.parametrize(
    "size", [Size(0, 0), Size(8, 600), Size(16_386, 16), Size(8192, 4400), Size(60_000, 60_000)]
)
def test_a_size_that_cannot_be_recorded_is_told(size: Size) -> None:
    """Breaks: an encoder takes the memory of the host, or three large screens are not recorded."""
    with pytest.raises(Unavailable) as refused:
        check_size(size)
    assert refused.value.code == "display.size"
    check_size(Size(3 * 3840, 2160))
