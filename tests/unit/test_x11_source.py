"""A display that is recorded: a real display, the real encoder, and encoders that fail."""

import asyncio
import os
import signal
import tempfile
from pathlib import Path

import psutil
import pytest

from infra.capture import x11_source
from infra.capture.ffmpeg import decode
from infra.capture.x11_display import Display
from infra.capture.x11_source import X11Source
from schemas.errors import Unavailable
from schemas.ports.processes import NewPart, Picture
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
    assert [new.lost_s for new, _ in recorded.parts] == [0, 0, 0, 0]


async def test_an_encoder_that_dies_costs_a_declared_moment(tmp_path: Path) -> None:
    """Breaks: a recording ends with its encoder, or its missing moment is not declared."""
    with xvfb(tmp_path) as number:
        recorded = Recorded(X11Source(Display(number, COOKIE), PICTURE))
        await recorded.has(1)
        for child in psutil.Process().children():
            if "ffmpeg" in child.name():
                child.send_signal(signal.SIGKILL)
        await recorded.has(2)
        recorded.source.stop()
        await recorded.ended()
    new, _ = recorded.parts[1]
    assert (new.reason, 0 < new.lost_s < PATIENCE_S) == ("encoder_exit", True)
    assert recorded.sizes(tmp_path, 1) == [("encoder_exit", 1024, 768)]  # the first one may lack its end


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
    assert os.listdir("/tmp") == [
        name for name in os.listdir("/tmp") if not name.startswith("lucid-display-")
    ]
