"""Stores the read models in one SQLite file: `views.sqlite` of the data directory.

1. Rows and their position in the log change in one transaction: a crash leaves both as they were.
2. Nothing here is the only copy. A file that is damaged, or of another version or log, is built anew.
3. Deleted and replaced rows are overwritten in the file (secure_delete).
"""

import json
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from schemas.errors import NoSpace, Unavailable
from schemas.ports.read_models import SessionQuery, SessionRow

VERSION = 1
"""Version of tables and rows. A file of another version is built anew."""
BUSY_S = 5.0
PRIMARY_CODE = 0xFF
"""Mask: the primary part of SQLite's extended error codes."""
TABLES = f"""
CREATE TABLE place (only_one INTEGER PRIMARY KEY CHECK (only_one = 1), log_id TEXT, position INTEGER);
CREATE TABLE sessions (
    number INTEGER PRIMARY KEY, seq INTEGER, session TEXT, state TEXT, host TEXT, shown TEXT
);
CREATE INDEX by_state ON sessions (state, number);
CREATE INDEX by_host ON sessions (host, number);
CREATE INDEX by_name ON sessions (number, session);
PRAGMA user_version = {VERSION};
"""

Result = TypeVar("Result")


class SqliteViews:
    """The port Views. Making the object touches nothing; the first call makes the file."""

    def __init__(self, path: Path, *, busy_s: float = BUSY_S) -> None:
        self._path, self._busy_s = path, busy_s
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None

    def begin(self, log_id: str) -> int:
        def work(db: sqlite3.Connection) -> int:
            found = db.execute("SELECT log_id, position FROM place").fetchone()
            if found is not None and found[0] == log_id:
                return int(found[1])
            db.execute("DELETE FROM sessions")
            db.execute("INSERT OR REPLACE INTO place VALUES (1, ?, 0)", (log_id,))
            return 0

        return self._do(work)

    def apply(self, rows: Sequence[SessionRow], position: int) -> None:
        values = [
            (row.number, row.seq, row.session, row.state, row.host, json.dumps(row.summary)) for row in rows
        ]

        def work(db: sqlite3.Connection) -> None:
            db.executemany(
                "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (number) DO UPDATE SET "
                "seq = excluded.seq, state = excluded.state, shown = excluded.shown "
                "WHERE excluded.seq > seq",
                values,
            )
            db.execute("UPDATE place SET position = max(position, ?)", (position,))

        self._do(work)

    def sessions(self, query: SessionQuery) -> list[tuple[int, dict[str, Any]]]:
        conditions = {
            "state = ?": query.state,
            "host = ?": query.host,
            "instr(session, ?) > 0": query.text,
            "number < ?": query.after,
        }
        wanted = {condition: value for condition, value in conditions.items() if value}
        where = f"WHERE {' AND '.join(wanted)} " if wanted else ""
        numbers = f"SELECT number FROM sessions {where}ORDER BY number DESC LIMIT ?"
        asked = f"SELECT number, shown FROM sessions WHERE number IN ({numbers}) ORDER BY number DESC"

        def work(db: sqlite3.Connection) -> list[tuple[int, dict[str, Any]]]:
            rows = db.execute(asked, (*wanted.values(), query.limit)).fetchall()
            return [(number, json.loads(shown)) for number, shown in rows]

        return self._do(work)

    def _do(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run one transaction. A damaged file is built anew, once."""
        with self._lock:
            for is_last in (False, True):
                try:
                    with self._opened() as db:
                        return work(db)
                except sqlite3.Error as error:
                    self._close()
                    if getattr(error, "sqlite_errorcode", 0) & PRIMARY_CODE == sqlite3.SQLITE_FULL:
                        raise NoSpace(f"{self._path}: {error}", code="disk.full", hint="free space") from None
                    if is_last or isinstance(error, sqlite3.OperationalError):
                        raise _failed(self._path, error) from None
                    self._remove()
        raise AssertionError("the last try returns or raises")

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            self._db = sqlite3.connect(self._path, timeout=self._busy_s, check_same_thread=False)
            self._path.chmod(0o600)
            for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "secure_delete = ON"):
                self._db.execute(f"PRAGMA {pragma}")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, VERSION):
                raise sqlite3.DatabaseError(f"it has version {version}")
            if version == 0:
                with suppress(sqlite3.OperationalError):  # another process creates the tables now
                    self._db.executescript(f"BEGIN IMMEDIATE; {TABLES} COMMIT;")
        return self._db

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)


def _failed(path: Path, error: sqlite3.Error) -> Unavailable:
    return Unavailable(
        f"{path} does not answer: {error}",
        code="views.failed",
        hint="remove the file; it is built again from the log",
    )
