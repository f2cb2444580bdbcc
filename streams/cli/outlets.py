"""Standard output and standard error that never raise: what they cannot write is lost, and remembered.

1. `install` puts them in the place of Python's own before a verb begins. A verb writes, and goes on: a
   recording does not end because nobody reads its notes, and a verdict stays what it is.
2. The first failure is kept. `streams.cli.output.settled` makes of it what it means for the exit status; a
   verb whose output has no end, or must arrive whole, asks in between.
3. The descriptors 0 to 2 are always open: where the caller closed one, a file that is opened later would get
   its number (libuv aborts then), and what is printed would go into that file.
4. What the encoding cannot show is escaped; bytes of a file name that are no text leave as they are.
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
GONE = (errno.EPIPE, errno.EBADF)
"""Of a failure: the reader has gone, or the caller closed the descriptor, and wants nothing of us."""


class Outlet(io.RawIOBase):
    """One of the two descriptors, unbuffered."""

    def __init__(self, file: int, lost: OSError | None = None) -> None:
        self._file = file
        self._terminal = os.isatty(file)
        self.lost = lost
        """Why it takes no more; None: all has arrived."""

    @property
    def unwanted(self) -> bool:
        """Whether it takes no more because nobody is there who would read it: a terminal may hang up, too."""
        return self.lost is not None and (self._terminal or self.lost.errno in GONE)

    def write(self, data: Any) -> int:
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
        outlet = Outlet(file, lost)
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
