"""A display that is recorded: a real display, the real encoder, and encoders that fail."""

import asyncio
import os
import signal
import tempfile
from pathlib import Path

import psutil
import pytest

from infra.capture import x11_display, x11_source
from infra.capture.ffmpeg import decode
from infra.capture.x11_display import Display
from infra.capture.x11_source import X11Source
from schemas.errors import Unavailable
from schemas.ports.processes import NewPart, Picture
from tests.support.machine.absent import absent
from tests.support.machine.waiting import PATIENCE_S, until
from tests.support.machine.x_display import COOKIE, Person, xvfb

PICTURE = Picture(frame_rate=10, key_frame_s=1)


class Recorded:
    """A source while it is read: reason, loss and bytes of each part."""

    def __init__(self, source: X11Source) -> None:
        self.source = source
        self.parts: list[tuple[NewPart, bytearray]] = [(NewPart("start"), bytearray())]
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for block in self.source:
            if isinstance(block, NewPart):
                self.parts.append((block, bytearray()))
            else:
                self.parts[-1][1].extend(block)

    async def has(self, parts: int) -> None:
        """Return when so many parts have a picture."""
        await until(lambda: self.task.done() or (len(self.parts) >= parts and b"mdat" in self.parts[-1][1]))
        assert len(self.parts) == parts, self.task

    async def ended(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.task

    def sizes(self, folder: Path, begin: int = 0) -> list[tuple[str, int, int]]:
        """Reason and size of each part from `begin` on; each must play by itself."""
        found = []
        for new, data in self.parts[begin:]:
            file = folder / "part.mp4"
            file.write_bytes(data)
            media = decode(file)
            found.append((new.reason, media.width, media.height))
        return found


async def test_each_size_of_a_display_is_a_part_that_plays(tmp_path: Path) -> None:
    """Breaks: after a resize the recording ends, is cropped, or does not play."""
    with xvfb(tmp_path) as number:
        person, recorded = Person(tmp_path, number), Recorded(X11Source(Display(number, COOKIE), PICTURE))
        await recorded.has(1)
        await asyncio.to_thread(person.resize, "641x481")  # an odd size has its last column and row
        await recorded.has(2)
        await asyncio.to_thread(person.resize, "1024x768")
        await recorded.has(3)
        recorded.source.cut("reconnected")
        await recorded.has(4)
        recorded.source.stop()
        await recorded.ended()
    expected = [
        ("start", 1024, 768),
        ("resized", 642, 482),
        ("resized", 1024, 768),
        ("reconnected", 1024, 768),
    ]
    assert recorded.sizes(tmp_path) == expected


async def test_an_encoder_that_dies_costs_a_declared_moment(tmp_path: Path) -> None:
    """Breaks: a recording ends with its encoder, or its missing moment is not declared."""
    with xvfb(tmp_path) as number:
        recorded = Recorded(X11Source(Display(number, COOKIE), PICTURE))
        await recorded.has(1)
        encoder().send_signal(signal.SIGKILL)
        await recorded.has(2)
        recorded.source.stop()
        await recorded.ended()
    new, _ = recorded.parts[1]
    assert (new.reason, 0 < new.lost_s < PATIENCE_S) == ("encoder_exit", True)
    assert recorded.sizes(tmp_path, 1) == [("encoder_exit", 1024, 768)]  # the first one may lack its end


async def test_a_size_that_cannot_be_recorded_is_a_declared_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a person makes the display enormous, and is not recorded for the rest of the day."""
    monkeypatch.setattr(x11_source, "HOLE_S", 0.0)
    monkeypatch.setattr(x11_display, "PIXELS_MOST", 700 * 500)
    with xvfb(tmp_path, screen="640x480x24") as number:
        person, recorded = Person(tmp_path, number), Recorded(X11Source(Display(number, COOKIE), PICTURE))
        await recorded.has(1)
        monkeypatch.setattr(x11_display, "PIXELS_MOST", 500 * 500)
        recorded.source.cut("reconnected")
        await asyncio.sleep(1)
        assert len(recorded.parts) == 1
        await asyncio.to_thread(person.resize, "480x320")
        await until(lambda: b"mdat" in recorded.parts[-1][1] and len(recorded.parts) > 1)
        recorded.source.stop()
        await recorded.ended()
    assert recorded.parts[1][0].lost_s > 0


@pytest.mark.parametrize("ends", ["stop", "display"])
async def test_time_without_a_picture_is_declared_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """Breaks: the last minute of a session has no picture, and nobody can tell it from an idle screen."""
    monkeypatch.setattr(x11_source, "HOLE_S", 0.0)
    with xvfb(tmp_path) as number:
        recorded = Recorded(X11Source(Display(number, COOKIE), PICTURE))
        await recorded.has(1)
        monkeypatch.setattr(x11_display, "PIXELS_MOST", 0)
        recorded.source.cut("disconnected")
        if ends == "stop":
            await asyncio.sleep(1)
            recorded.source.stop()
            await recorded.ended()
    await recorded.ended()
    new, data = recorded.parts[1]
    assert (new.reason, new.lost_s > 0, bytes(data)) == ("disconnected", True, b"")


async def test_an_encoder_that_hangs_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: an encoder gives no picture for hours, and the session looks recorded."""
    monkeypatch.setattr(x11_source, "STALL_S", 3.0)
    with xvfb(tmp_path) as number:
        recorded = Recorded(X11Source(Display(number, COOKIE), PICTURE))
        await recorded.has(1)
        encoder().send_signal(signal.SIGSTOP)
        await recorded.has(2)
        recorded.source.stop()
        await recorded.ended()
    assert recorded.parts[1][0].reason == "encoder_exit"
    assert recorded.parts[1][0].lost_s > 0


async def test_a_picture_goes_to_nobody_else_on_its_way(tmp_path: Path) -> None:
    """Breaks: any user of the host reads the screens of all others, or gets their cookies."""
    if os.geteuid() != 0:
        absent("a private network", "run as root")
    with xvfb(tmp_path) as number:
        recorded = Recorded(X11Source(Display(number, COOKIE), PICTURE))
        await recorded.has(1)
        network = os.stat(f"/proc/{encoder().pid}/ns/net").st_ino
        maps = [one.path for one in encoder().memory_maps(grouped=True)]
        recorded.source.stop()
        await recorded.ended()
    assert [path for path in maps if "SYSV" in path] == []
    assert network != os.stat("/proc/self/ns/net").st_ino, "it reaches no abstract socket of this host"


def encoder() -> psutil.Process:
    (found,) = (child for child in psutil.Process().children() if "ffmpeg" in child.name())
    return found


async def test_a_recording_ends_with_its_display(tmp_path: Path) -> None:
    """Breaks: a person logs off, and the session is never sealed."""
    with xvfb(tmp_path) as number:
        recorded = Recorded(X11Source(Display(number, COOKIE), PICTURE))
        await recorded.has(1)
    await recorded.ended()
    assert len(recorded.parts) == 1


async def test_a_display_that_no_encoder_can_read_breaks_the_recording_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a host without a working encoder says that it records, for ever."""
    monkeypatch.setattr(x11_source, "GIVE_UP_S", 0.5)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/bin/false")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    with xvfb(tmp_path) as number:
        recorded = Recorded(X11Source(Display(number, COOKIE), PICTURE))
        with pytest.raises(Unavailable) as broken:
            await recorded.ended()
        assert broken.value.code == "capture.failed"
        with pytest.raises(Unavailable) as absent:
            await Recorded(X11Source(Display(number + 1000), PICTURE)).ended()
    assert absent.value.code == "display.gone"
    assert os.listdir(tmp_path / "tmp") == []
