"""Keeps the spans that wait for their export in a file, so that a kill of this process loses none.

    span ended → line in the journal → the message is acknowledged → batch exported → lines forgotten

1. The lines are in the page cache, unsynced: they survive the process, not the machine.
2. Two files take turns. A file is emptied when all its spans are exported or dropped.
3. A living process holds a lock on its files. Files without a lock are left over: `take_over` hands their
   lines on, and removes a file when the journal of another process has all of them.
4. A span may so be exported twice, with the same ids and the same times. None is exported half.
5. A process that is killed between the two steps of making a file leaves an empty one without a lock.
   `take_over` removes it once it is old: a younger one may belong to a process that begins.
6. A disk that is full or read-only costs the journal, never the span or its caller.
"""

import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

TURN_BYTES = 256 << 10
MOST_BYTES = 4 << 20
"""A file that the exporter cannot follow takes no more lines."""
LEFT_OVER_MOST = 64
"""Files of ended processes that are taken over at one start; the others are removed."""
SUFFIX, NEW_SUFFIX = ".spans", ".new"
NEW_S = 60.0
"""A file that is made has its lock and its name long before that."""

Line = Sequence[Any]
Resource = dict[str, Any]


class _File:
    """One of the two files: its lock lasts as long as the descriptor."""

    def __init__(self, path: Path) -> None:
        self.path = path
        unlocked = path.with_suffix(NEW_SUFFIX)
        self.fd = os.open(unlocked, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unlocked.rename(path)  # it is locked before others find it
        self.size = self.last = 0
        """last: the number of the newest span in it."""

    def empty(self) -> None:
        if self.size:
            os.ftruncate(self.fd, 0)
        self.size = 0


class SpanJournal:
    """The journal of one process. One thread calls (journal_thread.py)."""

    def __init__(self, folder: Path, resource: Resource) -> None:
        """Raises OSError: the folder takes no file."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._files = [_File(folder / f"{name}-{number}{SUFFIX}") for number in (0, 1)]
        self._head = _packed(resource)
        self._written = self._done = 0
        """Numbers of the newest span, and of the newest one that is exported or dropped."""
        self._is_open = True
        """A closed descriptor may be another file's by now: nothing is written through it."""

    def add(self, lines: Sequence[Line], number: int) -> bool:
        """Note spans with one write; return whether the file has them all. number: of the last one."""
        data = b"".join(map(_packed, lines))
        self._written = number
        if not self._is_open:
            return False
        file = self._files[0]
        if file.size > TURN_BYTES and self._files[1].last <= self._done:
            self._files.reverse()
            file = self._files[0]
            with suppress(OSError):
                file.empty()
        file.last = number
        if file.size <= MOST_BYTES:
            data = data if file.size else self._head + data
            with suppress(OSError):
                written = os.write(file.fd, data)
                file.size += written
                return written == len(data)
        return False

    def forget(self, number: int) -> None:
        """The spans up to this number are exported, or dropped."""
        self._done = max(self._done, number)
        if self._is_open and self._done >= self._written:
            for file in self._files:
                with suppress(OSError):
                    file.empty()

    def close(self) -> None:
        """End it. Spans that were not exported stay for the next process."""
        files = self._files if self._is_open else []
        self._is_open = False
        for file in files:
            with suppress(OSError):
                if file.last <= self._done:
                    file.path.unlink()
                os.close(file.fd)


def take_over(folder: Path, give: Callable[[Resource, Line], bool]) -> None:
    """Give the spans that ended processes left, with the resource of each; then remove their files.

    give: returns whether the span is in another journal. If one is not, its file stays, and the work ends.
    """
    _remove_unmade(folder)
    taken = 0
    with suppress(OSError):
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            with suppress(OSError, BlockingIOError):
                is_wanted = taken < LEFT_OVER_MOST
                if not _given(path, give if is_wanted else _dropped):
                    return
                taken += 1


def _remove_unmade(folder: Path) -> None:
    """Remove the files that killed processes have begun to make: they have no span."""
    oldest_s = time.time() - NEW_S
    with suppress(OSError):
        for path in folder.glob(f"*{NEW_SUFFIX}"):
            with suppress(OSError):
                if path.stat().st_mtime < oldest_s:
                    path.unlink()


def _dropped(_resource: Resource, _line: Line) -> bool:
    return True


def _given(path: Path, give: Callable[[Resource, Line], bool]) -> bool:
    """Give the lines of a file, and remove it. Raises BlockingIOError: its process lives."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        resource: Resource = {}
        with open(fd, "rb", closefd=False) as file:
            for line in file.read(2 * MOST_BYTES).split(b"\n"):
                read = _read(line)
                if isinstance(read, dict):
                    resource = read
                elif isinstance(read, list) and not give(resource, read):
                    return False
        path.unlink()
    finally:
        os.close(fd)
    return True


def _read(line: bytes) -> object:
    """The last line of a killed process may be half: None."""
    try:
        return json.loads(line)
    except ValueError:
        return None


def _packed(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
