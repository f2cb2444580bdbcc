"""Opens one SQLite file for a writer and for readers, and removes it when it is damaged.

1. The writer and the readers of a process have a connection each: a page is read while documents are written.
2. Only the writer makes or removes the file. A reader of a damaged or foreign file raises Unavailable.
3. A file that another process has put in its place is opened anew: `_is_same` looks at every call.
4. Deleted and replaced rows are overwritten in the file (secure_delete).
"""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from schemas.errors import NoSpace, Unavailable

BUSY_S = 5.0
PRIMARY_CODE = 0xFF
"""Mask: the primary part of SQLite's extended error codes."""

Result = TypeVar("Result")
Work = Callable[[sqlite3.Connection], Result]


class SqliteFile:
    """One database file. Making the object touches nothing; the first write makes the file."""

    def __init__(self, path: Path, tables: str, version: int, busy_s: float = BUSY_S) -> None:
        """tables: the script that makes them. version: of tables and rows; another one counts as damage."""
        self.path = path
        self._tables, self._version, self._busy_s = tables, version, busy_s
        self._writer, self._reader = _Link(), _Link()

    def write(self, work: Work[Result]) -> Result:
        """Run one transaction that may write. A damaged file is removed and built anew, once."""
        with self._writer.lock:
            for is_last in (False, True):
                try:
                    return self._transact(self._writer, "BEGIN IMMEDIATE", work)
                except sqlite3.Error as error:
                    self._writer.close()
                    if is_last or not _is_damage(error):
                        raise self._translated(error) from None
                    self._remove()
        raise AssertionError("the last try returns or raises")

    def read(self, work: Work[Result], absent: Result) -> Result:
        """Run one transaction that reads one state of the file. absent: the result while there is no file."""
        with self._reader.lock:
            if not self.path.exists():
                self._reader.close()
                return absent
            try:
                return self._transact(self._reader, "BEGIN", work)
            except _EmptyError:
                self._reader.close()
                return absent
            except sqlite3.Error as error:
                self._reader.close()
                raise self._translated(error) from None

    def close(self) -> None:
        for link in (self._writer, self._reader):
            with link.lock:
                link.close()

    def _transact(self, link: "_Link", begin: str, work: Work[Result]) -> Result:
        db = self._opened(link)
        db.execute(begin)
        try:
            result = work(db)
            db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise
        return result

    def _opened(self, link: "_Link") -> sqlite3.Connection:
        if link.db is not None and link.is_of(self.path):
            return link.db
        link.close()
        mode = "rwc" if link is self._writer else "rw"
        db = link.db = sqlite3.connect(
            f"file:{quote(str(self.path))}?mode={mode}",
            uri=True,
            timeout=self._busy_s,
            check_same_thread=False,
            isolation_level=None,
        )
        if link is self._writer:
            self.path.chmod(0o600)
            db.execute("PRAGMA journal_mode = WAL")
        for pragma in ("synchronous = NORMAL", "secure_delete = ON"):
            db.execute(f"PRAGMA {pragma}")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0 and link is self._writer:
            with suppress(sqlite3.OperationalError):  # another process creates the tables now
                db.executescript(
                    f"BEGIN IMMEDIATE; {self._tables} PRAGMA user_version = {self._version}; COMMIT;"
                )
            with suppress(sqlite3.OperationalError):
                db.execute("ROLLBACK")
        elif version == 0:
            raise _EmptyError
        elif version != self._version:
            raise sqlite3.DatabaseError(f"it has version {version}")
        link.identity = _identity(self.path)
        return db

    def _remove(self) -> None:
        with self._reader.lock:
            self._reader.close()
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)

    def _translated(self, error: sqlite3.Error) -> Unavailable | NoSpace:
        if getattr(error, "sqlite_errorcode", 0) & PRIMARY_CODE == sqlite3.SQLITE_FULL:
            return NoSpace(f"{self.path}: {error}", code="disk.full", hint="free space")
        return Unavailable(
            f"{self.path} does not answer: {error}",
            code="views.failed",
            hint="remove the file; it is built again from the log",
        )


class _Link:
    """A connection, used by one thread at a time, and the file that it has open."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.db: sqlite3.Connection | None = None
        self.identity = (0, 0)

    def is_of(self, path: Path) -> bool:
        return self.identity == _identity(path)

    def close(self) -> None:
        if self.db is not None:
            self.db.close()
            self.db = None


class _EmptyError(Exception):
    """The writer has not made the tables yet."""


def _identity(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return (0, 0)
    return (found.st_dev, found.st_ino)


def _is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is at fault, not its disk, its access or another process."""
    return not isinstance(error, sqlite3.OperationalError)
