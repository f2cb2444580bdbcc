"""The drawn desktop through the bundled encoder."""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from handlers.format.mp4 import BoxSplitter
from infra.capture.drawn_desktop import drawn, record_desktop
from infra.capture.ffmpeg import decode
from schemas.errors import EvidenceFalse, Unavailable
from schemas.events.session import CaptureSettings
from schemas.ports.processes import Media, Picture


async def test_the_desktop_comes_in_real_time_and_plays(tmp_path: Path) -> None:
    """Breaks: the demo records what no player opens, or a minute of screen passes in a second."""
    splitter, units, began = BoxSplitter(), [], time.monotonic()
    async with await record_desktop(2, Picture(640, 360, 10, key_frame_s=1)) as capture:
        async for block in capture:
            units += splitter.feed(block)
    assert time.monotonic() - began > 1.5
    units += splitter.finish()
    assert not splitter.opaque
    assert sum(unit.key_frame for unit in units) == 2
    file = tmp_path / "a.mp4"
    file.write_bytes(b"".join(unit.data for unit in units))
    media = decode(file)
    assert (media.codec, media.width, media.height, media.frames) == ("h264", 640, 360, 20)
    assert media.seconds == pytest.approx(2.0, abs=0.2)


async def test_a_stopped_recording_still_plays(tmp_path: Path) -> None:
    """Breaks: Ctrl-C leaves half a fragment at the end."""
    data = b""
    async with await record_desktop(60, Picture(640, 360, 10, key_frame_s=1)) as capture:
        async for block in capture:
            data += block
            if len(data) > 60_000:
                capture.stop()
    file = tmp_path / "a.mp4"
    file.write_bytes(data)
    assert 1 <= decode(file).seconds < 30


async def size_of(picture: Picture) -> tuple[int, Media]:
    """Bytes of two seconds of the desktop, and what a decoder finds in them."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.mp4"
        file.write_bytes(drawn(2, picture))
        return file.stat().st_size, decode(file)


async def test_the_settings_of_a_capture_reach_its_picture() -> None:
    """Breaks: somebody asks for a small picture, or one without a pointer, and gets another."""
    asked = CaptureSettings(frame_rate=5, width=641, height=361, quality="low", cursor=False)
    picture = Picture.of(asked)
    size, media = await size_of(picture)
    assert (media.width, media.height, media.frames) == (640, 360, 10)
    assert (await size_of(replace(picture, quality="ultra")))[0] > size
    assert drawn(2, replace(picture, cursor=True)) != drawn(2, picture)
    ultra = replace(picture, quality="ultra", frame_rate=30)
    assert (await size_of(replace(ultra, bitrate=100)))[0] < (await size_of(ultra))[0]


async def test_an_encoder_that_fails_says_why() -> None:
    """Breaks: a recording that never began looks like one that is empty."""
    async with await record_desktop(1, Picture(0, -7)) as capture:
        blocks = aiter(capture)
        with pytest.raises(Unavailable, match=r"capture\.failed"):
            await anext(blocks)


def test_a_truncated_file_is_reported(tmp_path: Path) -> None:
    """Breaks: a damaged export is called good."""
    file = tmp_path / "a.mp4"
    file.write_bytes(b"\0\0\0\x18ftypisom" + bytes(100))
    with pytest.raises(EvidenceFalse, match=r"media\.undecodable"):
        decode(file)
