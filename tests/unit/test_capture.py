"""The drawn desktop through the bundled encoder."""

import time
from pathlib import Path

import pytest

from handlers.format.mp4 import BoxSplitter
from infra.capture.drawn_desktop import record_desktop
from infra.capture.ffmpeg import decode
from schemas.errors import EvidenceFalse, Unavailable
from schemas.ports.processes import Picture


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
