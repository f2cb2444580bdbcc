"""Reads and writes whole files past the page cache.

1. Reads come from the disk, not from pages that our own write left in memory, so a read-back proves
   something. Writing and reading back costs half the CPU time of going through the cache.
2. The kernel wants buffer, offset and length aligned. Unaligned bytes go through one aligned piece per
   thread. The last piece of a file is padded, and the file is then cut to its length.
3. Where a file system has no direct access, the same calls use the page cache, and drop the pages they read.
"""

import contextlib
import errno
import fcntl
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from schemas.buffers import ALIGNED_BYTES, is_aligned

PIECE_BYTES = 1 << 20
O_DIRECT = getattr(os, "O_DIRECT", 0)


class _Piece(threading.local):
    """Aligned memory, one piece for each thread that reads or writes."""

    def __init__(self) -> None:
        self.view = memoryview(mmap.mmap(-1, PIECE_BYTES))


_piece = _Piece()


def open_file(path: str | Path, flags: int, mode: int = 0o600, directory: int | None = None) -> int:
    """Open past the page cache, or through it where the file system has no direct access. Raises OSError."""
    file = os.open(path, flags | os.O_CLOEXEC, mode, dir_fd=directory)
    # Set after the open: with O_DIRECT in the open itself, a refusal may come when the file exists already.
    with contextlib.suppress(OSError):
        fcntl.fcntl(file, fcntl.F_SETFL, fcntl.fcntl(file, fcntl.F_GETFL) | O_DIRECT)
    return file


@contextlib.contextmanager
def opened_file(
    path: str | Path, flags: int, mode: int = 0o600, directory: int | None = None
) -> Iterator[int]:
    """Yield the descriptor of `open_file`."""
    file = open_file(path, flags, mode, directory)
    try:
        yield file
    finally:
        os.close(file)


def write_all(file: int, data: bytes | bytearray | memoryview) -> None:
    """Write `data` as the whole content of an empty file; it is durable on return. Raises OSError."""
    view, piece, whole = memoryview(data), _piece.view, 0
    if is_aligned(view):
        whole = len(view) // ALIGNED_BYTES * ALIGNED_BYTES
        _write(file, view[:whole])
    for at in range(whole, len(view), PIECE_BYTES):
        part = view[at : at + PIECE_BYTES]
        padded = -(-len(part) // ALIGNED_BYTES) * ALIGNED_BYTES
        piece[: len(part)] = part
        piece[len(part) : padded] = bytes(padded - len(part))
        _write(file, piece[:padded])
    os.ftruncate(file, len(view))
    os.fsync(file)
    _uncache(file)


def _write(file: int, rest: memoryview) -> None:
    while rest:
        rest = rest[_aligned_or_not(os.write, file, rest) :]


def read_all(file: int) -> bytes:
    """Return the whole content of an open file, from the disk. Raises OSError."""
    return b"".join(map(bytes, pieces(file)))


def pieces(file: int) -> Iterator[memoryview]:
    """Yield the same in pieces; each is valid until this thread takes the next. Raises OSError."""
    _uncache(file)
    while count := _aligned_or_not(os.readv, file, [_piece.view]):
        yield _piece.view[:count]
    _uncache(file)


def _aligned_or_not(call: Callable[[int, Any], int], file: int, argument: object) -> int:
    """Call it; if the file system demands more alignment, call it again through the page cache."""
    try:
        return call(file, argument)
    except OSError as error:
        flags = fcntl.fcntl(file, fcntl.F_GETFL)
        if error.errno != errno.EINVAL or not flags & O_DIRECT:
            raise
        fcntl.fcntl(file, fcntl.F_SETFL, flags & ~O_DIRECT)
        return call(file, argument)


def _uncache(file: int) -> None:
    """Drop the file's clean pages, so that the next read asks the disk even without direct access."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
