"""Reads a recording from a file, a pipe or standard input.

1. A read never blocks in a thread that cannot be woken.
2. A source that breaks off raises: an error of the file system or the link, or a file that became shorter
   while it was read. The bytes before it are yielded first.
3. An empty file is refused before anything starts. An empty pipe shows only at its end.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import stat
import sys
from collections.abc import AsyncIterator

from schemas.errors import NotFound, Unavailable

PIPE_BYTES = 256 << 10
"""The lead of a writer: a smaller pipe costs more fragments, a larger one delays a pause."""
STANDARD_INPUT = "-"


class FileSource:
    """A file, or standard input (`-`)."""

    def __init__(self, path: str, block_bytes: int) -> None:
        """block_bytes: the most that one read takes. Raises NotFound (record.source, record.empty)."""
        self.name = "standard input" if path == STANDARD_INPUT else path
        self.stopped = False
        self._block_bytes = block_bytes
        self._stopping = asyncio.Event()
        try:
            self._file = _opened(path)
            self._before = os.fstat(self._file)
            self._begin, empty = _place(self._file, self._before)
        except OSError as error:
            raise NotFound(f"{self.name} cannot be read: {error.strerror}", code="record.source") from None
        if empty:
            raise NotFound(f"{self.name} is empty: there is nothing to record", code="record.empty")
        self.size_bytes = max(0, self._before.st_size - self._begin)
        """0: the size is unknown."""

    @property
    def changed(self) -> bool:
        """Whether the file was written since it was opened."""
        now = os.fstat(self._file)
        return stat.S_ISREG(now.st_mode) and now.st_mtime_ns != self._before.st_mtime_ns

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield blocks of bytes. Raises Unavailable (source.broken, source.shrunk)."""
        read = 0
        while await self._readable():
            try:
                block = await asyncio.to_thread(os.read, self._file, self._block_bytes)
            except BlockingIOError:  # another process shares the pipe
                await asyncio.sleep(0)
                continue
            except OSError as error:
                raise Unavailable(f"{self.name} broke off: {error.strerror}", code="source.broken") from None
            if not block:
                self._check_end(read)
                return
            read += len(block)
            yield block

    def stop(self) -> None:
        """Yield no more."""
        self.stopped = True
        self._stopping.set()

    def _check_end(self, read: int) -> None:
        if read < self.size_bytes:
            text = f"{self.name} became shorter while it was read"
            text += f": it had {self.size_bytes:,} bytes, only {read:,} could be read"
            raise Unavailable(text, code="source.shrunk")

    async def _readable(self) -> bool:
        """Wait for bytes; False: it was stopped."""
        if self.stopped:
            return False
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        blocking = os.get_blocking(self._file)
        try:
            loop.add_reader(self._file, ready.set)
        except PermissionError:  # epoll refuses files and /dev/null: they never wait
            return True
        waits = [asyncio.ensure_future(event.wait()) for event in (ready, self._stopping)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(self._file)
            os.set_blocking(self._file, blocking)  # uvloop changed it for all processes that share the file
            for wait in waits:
                wait.cancel()
        return not self.stopped


def _place(file: int, found: os.stat_result) -> tuple[int, bool]:
    """Return the offset where reading begins, and whether the file is empty there."""
    if not stat.S_ISREG(found.st_mode):
        return 0, False
    begin = os.lseek(file, 0, os.SEEK_CUR)
    return begin, not os.pread(file, 1, begin)


def _opened(path: str) -> int:
    if path == STANDARD_INPUT:
        if sys.stdin is None:
            raise OSError(errno.EBADF, "it is closed")
        file = sys.stdin.fileno()
    else:
        # `_readable` waits for the writer of a named pipe: a blocking open would ignore signals
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(file, True)
    kind = os.fstat(file).st_mode
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if stat.S_ISFIFO(kind):
        with contextlib.suppress(OSError):  # the user's limit for pipe memory is reached
            if fcntl.fcntl(file, fcntl.F_GETPIPE_SZ) < PIPE_BYTES:
                fcntl.fcntl(file, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return file
