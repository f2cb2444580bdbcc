"""Opens the key file of one session for reading.

1. `open_key` may wait for the disk: call it in a thread, under the shared lock of the folder.
2. `open_key_now` waits for no lock and for no content: it gives up instead. Only a folder or a name that the
   kernel has forgotten costs a look at the disk, so it serves files that were opened before.
3. No file is followed through a link.
"""

import fcntl
import os
from pathlib import Path

READ_MOST_BYTES = 64 << 10
"""More than a key file has. Of a longer file only so much is read, and its length is then refused."""
NOW_BYTES = 8 << 10
"""What `open_key_now` reads: more than a key file has."""
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class OpenKey:
    """The port OpenKeyFile. The open file itself tells whether the key stands: no disk is asked."""

    def __init__(self, file: int, data: bytes) -> None:
        self._file, self.data = file, data

    def stands(self) -> bool:
        status = os.fstat(self._file)
        return status.st_size > 0 and status.st_nlink > 0

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def open_key(folder: int, name: str) -> OpenKey | None:
    """Open the file in an open folder; None: there is none. Raises OSError."""
    try:
        file = os.open(name, _FLAGS, dir_fd=folder)
    except FileNotFoundError:
        return None
    try:
        return OpenKey(file, os.pread(file, READ_MOST_BYTES, 0))
    except BaseException:
        os.close(file)
        raise


def open_key_now(folder: Path, name: str) -> OpenKey | None:
    """Open the file if its content is in memory and nobody changes its folder now; None: otherwise."""
    opened: list[int] = []
    try:
        opened.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        fcntl.flock(opened[0], fcntl.LOCK_SH | fcntl.LOCK_NB)
        opened.append(os.open(name, _FLAGS, dir_fd=opened[0]))
        content = bytearray(NOW_BYTES)
        read = os.preadv(opened[1], [content], 0, os.RWF_NOWAIT)
        return OpenKey(opened.pop(), bytes(content[:read])) if read else None
    except (OSError, AttributeError):  # locked, absent, on the disk only; a system without RWF_NOWAIT
        return None
    finally:
        for file in opened:
            os.close(file)
