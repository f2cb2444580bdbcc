"""The scrub and a disk that fails: a bad sector under one file, and under all of them."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.blobs import direct_io
from infra.nats_server.server import NatsServer
from tests.support.pipeline.scrubbed import one_pass, open_alarms, sealed, system, written_at_once


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits."""
    written_at_once(monkeypatch)


@pytest.fixture
def bad(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Inodes with a sector that cannot be read; 0: every chunk, and every file that shall become one."""
    found: set[int] = set()
    pieces = direct_io.pieces

    def failing(file: int) -> Iterator[memoryview]:
        is_chunk = "/chunks/" in os.readlink(f"/proc/self/fd/{file}")
        if os.fstat(file).st_ino in found or (0 in found and is_chunk):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pieces(file)

    monkeypatch.setattr(direct_io, "pieces", failing)
    return found


async def test_a_file_that_cannot_be_read_is_made_again_and_kept_aside(
    server: NatsServer, tmp_path: Path, bad: set[int]
) -> None:
    """Breaks: the disk says aloud that a sector is gone, and evidence that could be mended stays false."""
    async with system(server, tmp_path) as world:
        files = await sealed(world)
        good = [path.read_bytes() for path in files]
        broken = {files[1].stat().st_ino, files[-1].stat().st_ino}
        bad |= broken
        found = await one_pass(world)
        assert (found["last"]["repaired"], open_alarms(found)) == (2, [])
        assert {one["code"] for one in found["findings"]} == {"blobs.io"}
        assert [path.read_bytes() for path in files] == good
        aside = {path.stat().st_ino for path in (world.data.path / "quarantine").glob("*/*")}
        assert aside == broken, "moved, not copied"
        assert (await one_pass(world))["last"]["repaired"] == 0


async def test_a_disk_that_gives_nothing_back_loses_no_file_and_ends_no_pass(
    server: NatsServer, tmp_path: Path, bad: set[int]
) -> None:
    """Breaks: a controller fails for an hour, and the scrub moves every good file into the quarantine."""
    async with system(server, tmp_path) as world:
        files = await sealed(world)
        good = [path.read_bytes() for path in files]
        bad.add(0)
        found = await one_pass(world)
        assert {code for _, _, code in open_alarms(found)} == {"blobs.io"}
        assert len(open_alarms(found)) == len(files)
        assert [path.read_bytes() for path in files] == good
        bad.clear()
        found = await one_pass(world)
        assert open_alarms(found) == []
        assert not list((world.data.path / "quarantine").glob("*/*"))
