"""Writes to standard output and standard error without raising: a failed write is remembered instead.

1. `install` replaces Python's own streams before a verb begins. A verb writes and goes on: an unread note
   ends no recording, and a failed print changes no verdict.
2. The first failure is kept. `streams.cli.output.final_status` turns it into an exit status. A verb with
   endless output, or with output that must arrive whole, asks in between.
3. The descriptors 0 to 2 are always open. If the caller closed one, a file opened later would get its number:
   libuv aborts then, and prints would go into that file.
4. Standard output waits for its reader. Standard error waits PATIENCE_S, then drops bytes, and reports the
   number of dropped bytes once the reader reads again. A pager that stands still stops no recording.
5. Characters outside the encoding are escaped. Bytes of a file name that are no text are written unchanged.
"""

import codecs
import errno
import io
import os
import select
import sys
from typing import Any, TextIO

STANDARD_OUTPUT, STANDARD_ERROR = 1, 2
ESCAPED = "lucid.escaped"
"""The error handler for characters that the encoding does not have."""
PIECE_BYTES = select.PIPE_BUF
"""A writable pipe takes so many bytes at once, without waiting."""
PATIENCE_S = 1.0
GONE = (errno.EPIPE, errno.EBADF)
"""Failures that mean: the reader has gone, or the caller closed the descriptor."""


class Outlet(io.RawIOBase):
    """One of the two descriptors, unbuffered.

    patience_s: how long it waits for its reader; None: for ever.
    """

    def __init__(self, file: int, lost: OSError | None = None, patience_s: float | None = None) -> None:
        self._file, self._patience_s = file, patience_s
        self._dropped = 0
        """Bytes dropped since the reader last read."""
        self._terminal = os.isatty(file)
        self.lost = lost
        """The failure that ended writing; None: all bytes were written."""

    @property
    def reader_gone(self) -> bool:
        """Whether writing failed because no reader is left: a terminal may hang up, too."""
        return self.lost is not None and (self._terminal or self.lost.errno in GONE)

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if self._patience_s is None or self.lost is not None:
            return self._written(data)
        if not self._is_writable(0 if self._dropped else self._patience_s):
            self._dropped += size
            return size
        if self._dropped:
            text, self._dropped = f"lucid: {self._dropped} bytes were left out here: nobody read\n", 0
            self._written(text.encode())
            return self.write(data)
        return self._written(memoryview(data)[:PIECE_BYTES])

    def _is_writable(self, wait_s: float) -> bool:
        ready = select.poll()
        ready.register(self._file, select.POLLOUT)
        return bool(ready.poll(wait_s * 1000))

    def _written(self, data: Any) -> int:
        while self.lost is None:
            try:
                return os.write(self._file, data)
            except BlockingIOError:  # another program that shares the open file made it non-blocking
                select.select([], [self._file], [])
            except OSError as error:
                self.lost = error
        return memoryview(data).nbytes

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file

    def isatty(self) -> bool:
        return self._terminal


def install() -> None:
    """Replace sys.stdout and sys.stderr, for the rest of the process."""
    codecs.register_error(ESCAPED, _escaped)
    fill_standard_files()
    for name, file in (("stdout", STANDARD_OUTPUT), ("stderr", STANDARD_ERROR)):
        before: TextIO | None = getattr(sys, name)
        lost = OSError(errno.EBADF, os.strerror(errno.EBADF)) if before is None else None
        outlet = Outlet(file, lost, PATIENCE_S if file == STANDARD_ERROR else None)
        stream = io.TextIOWrapper(
            io.BufferedWriter(outlet),
            encoding=before.encoding if before else "utf-8",
            errors=ESCAPED,
            line_buffering=outlet.isatty() or file == STANDARD_ERROR,
        )
        setattr(sys, name, stream)


def _escaped(error: UnicodeError) -> tuple[str | bytes, int]:
    assert isinstance(error, UnicodeEncodeError)
    return b"".join(map(_escaped_one, error.object[error.start : error.end])), error.end


def _escaped_one(character: str) -> bytes:
    try:
        return character.encode("ascii", "surrogateescape")
    except UnicodeEncodeError:
        return character.encode("ascii", "backslashreplace")


def outlet_of(stream: TextIO) -> Outlet | None:
    """The outlet below a stream; None: the stream is not ours, such as a test's."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw if isinstance(raw, Outlet) else None


def fill_standard_files() -> None:
    """Open each closed descriptor of 0 to 2 on /dev/null."""
    while (file := os.open(os.devnull, os.O_RDWR)) <= STANDARD_ERROR:
        pass
    os.close(file)
