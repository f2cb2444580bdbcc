"""Overwrites a file in place, and records whether any of its old bytes can be left on the disk.

1. It writes random bytes, never zeros: a host may turn zeros into a discard, which leaves the old bytes.
2. It writes past the page cache where the file system allows it, always syncs, and reads back from the disk.
3. An overwriting is proven only if FIEMAP shows the same blocks before and after. None may be shared, inline,
   compressed or unwritten, and the medium must write a block in place (infra.keys.medium).
4. The mark of a file (an extended attribute) states: all bytes that it, and the files that it replaced, ever
   held are on no other blocks. It names the file (inode, generation) and its blocks, so a copy of the file,
   or a file that moved on the disk, is not marked. Without attributes there is no proof.

Source: Documentation/filesystems/fiemap.rst.
"""

import contextlib
import fcntl
import os
import secrets
import struct

from infra.blobs import direct_io
from infra.keys.medium import medium
from schemas.errors import Unavailable

FIEMAP, FIEMAP_SYNC = 0xC020660B, 1
HEAD, EXTENT = struct.Struct("=QQIIII"), struct.Struct("=QQQQQIIII")
EXTENTS_MOST = 64
PLAIN = 0x1 | 0x1000
"""Flags of an extent with blocks of its own: LAST, MERGED."""
MARK = "user.lucid.proven"
DOUBT = b"unproven"
"""In the place of a mark, for good. Where the medium allows no proof, no file needs it."""
GETVERSION, VERSION = 0x80087601, struct.Struct("=i4x")
"""FS_IOC_GETVERSION: the generation tells a file from an earlier one with its inode."""


def write_new(file: int, data: bytes, folder: int) -> None:
    """Write the content of an empty file, durably; no crash leaves any of it outside the file's blocks.

    file: from `direct_io.open_file`, with a name in `folder`. Raises OSError, Unavailable (keys.read_back).
    """
    # Blocks first: without them a power failure could leave the content in blocks that belong to no file.
    direct_io.write_all(file, secrets.token_bytes(len(data)))
    os.fsync(folder)
    _put(file, data)


def overwrite(file: int) -> bool:
    """Overwrite a whole file with random bytes, durably; return whether nothing is proven to be left.

    file: from `direct_io.open_file`, for reading and writing. Raises OSError, Unavailable (keys.read_back).
    """
    size = os.fstat(file).st_size
    before = blocks(file, size)
    _put(file, secrets.token_bytes(size))
    return not size or (bool(before) and blocks(file, size) == before and not medium(file).unproven)


def blocks(file: int, size: int) -> tuple[tuple[int, int], ...]:
    """Return the extents of a file, (byte on the disk, bytes) each; empty: unknown."""
    asked = bytearray(HEAD.size + EXTENTS_MOST * EXTENT.size)
    HEAD.pack_into(asked, 0, 0, size, FIEMAP_SYNC, 0, EXTENTS_MOST, 0)
    try:
        fcntl.ioctl(file, FIEMAP, asked)
    except OSError:
        return ()
    end, found = 0, []
    for number in range(HEAD.unpack_from(asked)[3]):
        logical, physical, length, _, _, flags, *_ = EXTENT.unpack_from(
            asked, HEAD.size + number * EXTENT.size
        )
        if flags & ~PLAIN or logical != end:
            return ()
        end = logical + length
        found.append((physical, min(length, size - logical)))
    return tuple(found) if end >= size else ()


def is_marked(file: int) -> bool:
    with contextlib.suppress(OSError):
        return os.getxattr(file, MARK) in (_here(file), _here(file, erased=True))
    return False


def is_doubted(file: int) -> bool:
    with contextlib.suppress(OSError):
        return os.getxattr(file, MARK) == DOUBT
    return False


def mark(file: int, *, erased: bool = False) -> None:
    """Mark the file, durably, unless it is doubted. erased: it holds no key any more."""
    if not medium(file).unproven and not is_doubted(file):
        with contextlib.suppress(OSError):
            os.setxattr(file, MARK, _here(file, erased=erased))
            os.fsync(file)


def unmark(file: int) -> None:
    """Replace the mark by a doubt, durably: no crash and no later `mark` brings it back."""
    if not medium(file).unproven:
        with contextlib.suppress(OSError):  # a full disk has no place for a new attribute
            os.setxattr(file, MARK, DOUBT)
    if is_marked(file):
        os.removexattr(file, MARK)
    os.fsync(file)


def _here(file: int, *, erased: bool = False) -> bytes:
    """Return the identity of the file and its blocks. Raises OSError."""
    status = os.fstat(file)
    (generation,) = VERSION.unpack(fcntl.ioctl(file, GETVERSION, bytes(VERSION.size)))
    extents = " ".join(f"{at}+{length}" for at, length in blocks(file, status.st_size))
    return f"{status.st_ino} {generation} {'erased' if erased else extents}".encode()


def _put(file: int, data: bytes) -> None:
    """Write a whole file in place, durably, and read it back from the disk."""
    os.lseek(file, 0, os.SEEK_SET)
    direct_io.write_all(file, data)
    os.lseek(file, 0, os.SEEK_SET)
    if direct_io.read_all(file) != data:
        raise Unavailable(
            "a key file, read back from the disk, differs from the written bytes", code="keys.read_back"
        )
