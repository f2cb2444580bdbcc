"""What a recording reads from: files, pipes, standard input."""

import fcntl
import os
from pathlib import Path

import pytest

from infra.capture import file_source
from infra.capture.file_source import FileSource
from schemas.errors import Unavailable


def pipe_of(size: int, path: Path) -> int:
    """A named pipe that holds so many bytes and is full; its writing end."""
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, size)
    assert os.write(writer, bytes(size)) == size
    os.dup2(writer, reader)  # who reads comes later
    return writer


def test_a_pipe_that_holds_more_already_is_read_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: `record` refuses the pipe of a process that is ahead, for it cannot be made smaller."""
    monkeypatch.setattr(file_source, "PIPE_BYTES", 1 << 16)
    writer = pipe_of(1 << 18, tmp_path / "pipe")
    FileSource(str(tmp_path / "pipe"), 1 << 20)
    assert fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ) == 1 << 18


def test_a_pipe_holds_a_fragment_at_least(tmp_path: Path) -> None:
    """Breaks: a process that writes fast stands still at each 64 KiB."""
    writer = pipe_of(1 << 16, tmp_path / "pipe")
    FileSource(str(tmp_path / "pipe"), 1 << 20)
    assert fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ) == file_source.PIPE_BYTES


async def test_a_pipe_that_is_shared_stays_as_it_was(tmp_path: Path) -> None:
    """Breaks: whoever shares standard input, or a terminal's output with it, is told "try again" and ends."""
    os.mkfifo(tmp_path / "pipe")
    writer = os.open(tmp_path / "pipe", os.O_RDWR)
    source = FileSource(str(tmp_path / "pipe"), 1 << 20)
    os.write(writer, b"block")
    assert [await anext(aiter(source)), os.get_blocking(source._file)] == [b"block", True]
    os.close(writer)


async def test_a_file_that_becomes_shorter_while_it_is_read_broke_off(tmp_path: Path) -> None:
    """Breaks: half of a recording is called recorded and sealed, exit 0."""
    path = tmp_path / "file"
    path.write_bytes(b"1234567890")
    source = FileSource(str(path), 4)
    blocks = aiter(source)
    assert await anext(blocks) == b"1234"
    os.truncate(path, 6)
    assert await anext(blocks) == b"56"
    with pytest.raises(Unavailable, match=r"it had 10 bytes, only 6 could be read \[source\.shrunk\]"):
        await anext(blocks)
    assert source.changed
