"""Standard output and standard error that never raise: what they cannot write is lost, and remembered.

1. `install` puts them in the place of Python's own before a verb begins. A verb writes, and goes on: a
   recording does not end because nobody reads its notes, and a verdict stays what it is.
2. The first failure is kept. `streams.cli.output.settled` makes of it what it means for the exit status; a
   verb whose output has no end, or must arrive whole, asks in between.
3. The descriptors 0 to 2 are always open: where the caller closed one, a file that is opened later would get
   its number (libuv aborts then), and what is printed would go into that file.
4. Standard output waits for its reader. Standard error does so for PATIENCE_S, then leaves out what finds no
   room, and says so when there is room again: a pager that stands still stops no recording and no service.
5. What the encoding cannot show is escaped; bytes of a file name that are no text leave as they are.
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
"""How characters are written that the encoding does not have."""
PIECE_BYTES = select.PIPE_BUF
"""A pipe that has room takes so many at once, and never waits."""
PATIENCE_S = 1.0
GONE = (errno.EPIPE, errno.EBADF)
"""Of a failure: the reader has gone, or the caller closed the descriptor, and wants nothing of us."""


class Outlet(io.RawIOBase):
    """One of the two descriptors, unbuffered.

    patience_s: how long it waits for its reader; None: for ever.
    """

    def __init__(self, file: int, lost: OSError | None = None, patience_s: float | None = None) -> None:
        self._file, self._patience_s = file, patience_s
        self._left_out = 0
        """Bytes since there was room."""
        self._terminal = os.isatty(file)
        self.lost = lost
        """Why it takes no more; None: all has arrived."""

    @property
    def unwanted(self) -> bool:
        """Whether it takes no more because nobody is there who would read it: a terminal may hang up, too."""
        return self.lost is not None and (self._terminal or self.lost.errno in GONE)

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if self._patience_s is None or self.lost is not None:
            return self._written(data)
        if not self._has_room(0 if self._left_out else self._patience_s):
            self._left_out += size
            return size
        if self._left_out:
            told, self._left_out = f"lucid: {self._left_out} bytes were left out here: nobody read\n", 0
            self._written(told.encode())
            return self.write(data)
        return self._written(memoryview(data)[:PIECE_BYTES])

    def _has_room(self, wait_s: float) -> bool:
        ready = select.poll()
        ready.register(self._file, select.POLLOUT)
        return bool(ready.poll(wait_s * 1000))

    def _written(self, data: Any) -> int:
        while self.lost is None:
            try:
                return os.write(self._file, data)
            except BlockingIOError:  # another program that shares the open file has set that
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
    """Take both descriptors over, for the rest of the process."""
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
    """The outlet below a stream; None: it is another one's, such as a test's."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw if isinstance(raw, Outlet) else None


def fill_standard_files() -> None:
    """Open what is closed of the descriptors 0 to 2 to nowhere."""
    while (file := os.open(os.devnull, os.O_RDWR)) <= STANDARD_ERROR:
        pass
    os.close(file)
