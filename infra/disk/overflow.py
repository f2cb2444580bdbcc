"""Keeps bytes that do not fit into memory in files without names, on the disk of one folder.

1. A file has no name: it ends with its last user in this process, and with the process. No crash leaves one.
2. Nothing is synced. Most bytes never leave the page cache; a loss makes the caller read its source again.
3. All files together take at most `limit_bytes`, and those of all processes at most one part of FREE_PART of
   the free disk. So the rooms of the broker and of the store stay free.
4. No error leaves here: bytes that the disk does not take are refused. After an error, or a write that was
   slow, nothing is written for PAUSE_S. The caller writes on its event loop, which must not wait for a disk.
5. It knows bytes, not their meaning.
"""

import os
import resource
import secrets
import time
from collections import deque
from pathlib import Path

from infra.disk.durable import FILE_MODE, FOLDER_MODE, NO_TMPFILE
from schemas.config.logs import logger
from schemas.format.digest import Buffer

FREE_PART = 4
SLOW_S, PAUSE_S = 0.05, 10.0
"""A write into the page cache takes 0.03 ms for 150 kB, unless the kernel makes its writer wait."""
DESCRIPTORS_MOST = 1 << 16
"""The soft limit of this process's open files is raised to this, if the hard one allows it."""
FILES_PART = 2
"""Files take at most one part of so many of the descriptors."""

log = logger("lucid.overflow")


class DiskOverflow:
    """The port Overflow. Making one touches no file; the limit of open files is raised."""

    def __init__(self, folder: Path, limit_bytes: int, sharers: int = 1) -> None:
        """sharers: the processes that share the disk with files of their own."""
        self.is_full = False
        self._free_part = FREE_PART * sharers
        self._folder, self._limit = folder, limit_bytes
        self._files_most = raised_file_limit() // FILES_PART
        self._used = self._files = 0
        self._ended: deque[int] = deque()
        """Sizes of files that ended, in any thread."""
        self._paused_until_s = 0.0

    @property
    def used_bytes(self) -> int:
        while self._ended:
            self._used -= self._ended.popleft()
            self._files -= 1
        return self._used

    def open(self) -> "DiskOverflowFile | None":
        self.is_full = self.used_bytes >= self._limit or self._files >= self._files_most
        if self.is_full or self._is_paused():
            return None
        try:
            file = DiskOverflowFile(self, _nameless(self._folder), self._ended)
        except OSError as error:
            self._pause(reason=error.strerror or type(error).__name__)
            return None
        self._files += 1
        return file

    def write(self, file: int, data: Buffer, at: int) -> bool:
        """Write all of `data` into one file; False: refused, and what the file holds there is undefined."""
        began_s = time.monotonic()
        try:
            disk = os.fstatvfs(file)
            most = min(self._limit, disk.f_bavail * disk.f_frsize // self._free_part)
            self.is_full = self.used_bytes + len(data) > most
            if self.is_full or self._is_paused():
                return False
            is_whole = os.pwrite(file, data, at) == len(data)
        except OSError as error:
            self._pause(reason=error.strerror or type(error).__name__)
            return False
        if not is_whole or time.monotonic() - began_s > SLOW_S:
            self._pause(reason="slow" if is_whole else "short write")
        self._used += len(data) if is_whole else 0
        return is_whole

    def _is_paused(self) -> bool:
        return time.monotonic() < self._paused_until_s

    def _pause(self, reason: str) -> None:
        self._paused_until_s = time.monotonic() + PAUSE_S
        log.warning("overflow_paused", reason=reason, used_bytes=self._used, pause_s=PAUSE_S)


class DiskOverflowFile:
    """The port OverflowFile. Its bytes and its descriptor are free when its last user drops it."""

    def __init__(self, overflow: DiskOverflow, file: int, ended: deque[int]) -> None:
        self._overflow, self._file, self._ended = overflow, file, ended
        self._size = 0

    def append(self, data: Buffer) -> int | None:
        at = self._size
        if not self._overflow.write(self._file, data, at):
            return None
        self._size += len(data)
        return at

    def read(self, at: int, into: memoryview) -> bool:
        try:
            return os.preadv(self._file, [into], at) == len(into)
        except OSError:
            return False

    def __del__(self) -> None:
        os.close(self._file)
        self._ended.append(self._size)  # counted by the event loop: this may be any thread


def _nameless(folder: Path) -> int:
    """Return a new file without a name, open for reading and writing."""
    folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CLOEXEC
    if hasattr(os, "O_TMPFILE"):
        try:
            return os.open(folder, flags | os.O_TMPFILE, FILE_MODE)
        except OSError as error:
            if error.errno not in NO_TMPFILE:
                raise
    path = folder / f".overflow-{secrets.token_hex(8)}"
    file = os.open(path, flags | os.O_CREAT | os.O_EXCL, FILE_MODE)
    path.unlink()
    return file


def raised_file_limit() -> int:
    """Raise the soft limit of open files as far as DESCRIPTORS_MOST; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_MOST if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return min(soft, DESCRIPTORS_MOST) if soft != resource.RLIM_INFINITY else DESCRIPTORS_MOST
