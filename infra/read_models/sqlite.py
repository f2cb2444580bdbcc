"""Stores the read models in one SQLite file: `views.sqlite` of the data directory.

    generations          role, source and position of each.
    documents_<number>   the documents of one generation.
    tokens_<number>      by token, the numbers of the sessions that have it.

1. Documents and their position in the log change in one transaction: a crash leaves both as they were.
2. Nothing here is the only copy. A file that is damaged, or of another version or source, is built anew.
3. The numbers of generations are never used twice.
"""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from infra.read_models import sqlite_query
from infra.read_models.generations import given_up
from infra.read_models.sqlite_file import BUSY_S, SqliteFile
from schemas.ports.read_models import (
    Generation,
    SessionDocument,
    SessionFilter,
    SessionPage,
    SessionQuery,
    StateTotals,
)

VERSION = 2
"""Version of tables and rows. A file of another version is built anew."""
ACTIVE, BUILDING = "active", "building"
TABLES = """
CREATE TABLE generations (
    number INTEGER PRIMARY KEY AUTOINCREMENT, role TEXT NOT NULL UNIQUE, source TEXT, position INTEGER
);
"""
COLUMNS = tuple(one.name for one in fields(SessionDocument))
INDEXED = (
    *("state", "host", "opened_by", "session"),
    *("created_us", "moved_us", "started_us", "plain_bytes", "duration_us"),
)
TOKEN_BYTES = 12

Result = TypeVar("Result")
Work = Callable[[sqlite3.Connection], Result]


class SqliteViews:
    """The port Views. Making the object touches nothing; `begin` makes the file."""

    kind = "SQLite"

    def __init__(self, path: Path, *, busy_s: float = BUSY_S) -> None:
        self._file = SqliteFile(path, TABLES, VERSION, busy_s)

    async def begin(self, source: str) -> Generation:
        def work(db: sqlite3.Connection) -> Generation:
            found = _of_role(db, ACTIVE)
            if found is None or found[1] != source:
                for role in (ACTIVE, BUILDING):
                    _drop(db, role)
                return _make(db, ACTIVE, source)
            return found[0]

        return await self._write(work)

    async def apply(self, generation: int, documents: Sequence[SessionDocument], position: int) -> None:
        rows = [_row(document) for document in documents]

        def work(db: sqlite3.Connection) -> None:
            _require(db, generation)
            for document, row in zip(documents, rows, strict=True):
                _store(db, generation, document, row)
            db.execute(
                "UPDATE generations SET position = max(position, ?) WHERE number = ?", (position, generation)
            )

        await self._write(work)

    async def active(self) -> Generation:
        return await self._read(_active, Generation())

    async def sessions(self, query: SessionQuery) -> SessionPage:
        def work(db: sqlite3.Connection) -> SessionPage:
            generation = _active(db)
            if not generation.number:
                return SessionPage([], generation)
            sql, values = sqlite_query.page(db, query, generation.number)
            numbers = [number for (number,) in db.execute(sql, values)]
            found = {one.number: one for one in _documents(db, generation.number, numbers)}
            return SessionPage([found[number] for number in numbers], generation)

        return await self._read(work, SessionPage([], Generation()))

    async def session(self, session: str) -> SessionDocument | None:
        def work(db: sqlite3.Connection) -> SessionDocument | None:
            generation = _active(db).number
            if not generation:
                return None
            sql = f"SELECT max(number) FROM documents_{generation} WHERE session = ?"
            numbers = [number for (number,) in db.execute(sql, (session,)) if number is not None]
            return next(iter(_documents(db, generation, numbers)), None)

        return await self._read(work, None)

    async def totals(self, wanted: SessionFilter) -> list[StateTotals]:
        def work(db: sqlite3.Connection) -> list[StateTotals]:
            generation = _active(db).number
            if not generation:
                return []
            return sqlite_query.totals(db, wanted, generation)

        return await self._read(work, [])

    async def count(self) -> int:
        def work(db: sqlite3.Connection) -> int:
            generation = _active(db).number
            if not generation:
                return 0
            (found,) = db.execute(f"SELECT count(*) FROM documents_{generation}").fetchone()
            return int(found)

        return await self._read(work, 0)

    async def build(self, source: str) -> Generation:
        def work(db: sqlite3.Connection) -> Generation:
            _drop(db, BUILDING)
            return _make(db, BUILDING, source)

        return await self._write(work)

    async def switch(self, generation: int) -> bool:
        def work(db: sqlite3.Connection) -> bool:
            _require(db, generation)
            built, active = _of_role(db, BUILDING), _of_role(db, ACTIVE)
            if built is None or built[0].number != generation:
                return True  # a former call switched
            if active is not None and active[0].position > built[0].position and active[1] == built[1]:
                return False
            _drop(db, ACTIVE)
            db.execute("UPDATE generations SET role = ? WHERE number = ?", (ACTIVE, generation))
            return True

        return await self._write(work)

    async def close(self) -> None:
        await asyncio.to_thread(self._file.close)

    async def _write(self, work: Work[Result]) -> Result:
        return await asyncio.to_thread(self._file.write, work)

    async def _read(self, work: Work[Result], absent: Result) -> Result:
        return await asyncio.to_thread(self._file.read, work, absent)


def _of_role(db: sqlite3.Connection, role: str) -> tuple[Generation, str] | None:
    """The generation of this role, and its source."""
    sql = "SELECT number, position, source FROM generations WHERE role = ?"
    found = db.execute(sql, (role,)).fetchone()
    return None if found is None else (Generation(found[0], found[1]), found[2])


def _active(db: sqlite3.Connection) -> Generation:
    found = _of_role(db, ACTIVE)
    return found[0] if found else Generation()


def _require(db: sqlite3.Connection, generation: int) -> None:
    """Raises Conflict (views.generation)."""
    if db.execute("SELECT 1 FROM generations WHERE number = ?", (generation,)).fetchone() is None:
        raise given_up(generation)


def _make(db: sqlite3.Connection, role: str, source: str) -> Generation:
    made = db.execute("INSERT INTO generations (role, source, position) VALUES (?, ?, 0)", (role, source))
    number = made.lastrowid
    assert number is not None
    table = f"documents_{number}"
    others = ", ".join(name for name in COLUMNS if name != "number")
    db.execute(f"CREATE TABLE {table} (number INTEGER PRIMARY KEY, {others})")
    for name in INDEXED:
        db.execute(f"CREATE INDEX {name}_{number} ON {table} ({name})")
    db.execute(f"CREATE INDEX name_{number} ON {table} (number, session)")
    sums = "chunks, plain_bytes, sealed_bytes, duration_us"
    db.execute(f"CREATE INDEX totals_{number} ON {table} (state, {sums})")
    db.execute(
        f"CREATE TABLE tokens_{number} "
        "(token BLOB, number INTEGER, PRIMARY KEY (token, number)) WITHOUT ROWID"
    )
    return Generation(number, 0)


def _drop(db: sqlite3.Connection, role: str) -> None:
    """Drop the generation of this role. Pages of dropped tables are overwritten (secure_delete)."""
    found = _of_role(db, role)
    if found is not None:
        number = found[0].number
        db.execute(f"DROP TABLE documents_{number}")
        db.execute(f"DROP TABLE tokens_{number}")
        db.execute("DELETE FROM generations WHERE number = ?", (number,))


def _store(db: sqlite3.Connection, generation: int, document: SessionDocument, row: tuple[Any, ...]) -> None:
    """Store one document, unless the stored one is as new."""
    sql = f"SELECT seq, tokens FROM documents_{generation} WHERE number = ?"
    seq, tokens = db.execute(sql, (document.number,)).fetchone() or (0, b"")
    if seq >= document.seq:
        return
    marks = ", ".join("?" * len(COLUMNS))
    db.execute(f"INSERT OR REPLACE INTO documents_{generation} VALUES ({marks})", row)
    before, after = set(_split(tokens)), set(document.tokens)
    pairs = f"tokens_{generation}"
    for token in before - after:
        db.execute(f"DELETE FROM {pairs} WHERE token = ? AND number = ?", (token, document.number))
    for token in after - before:
        db.execute(f"INSERT OR IGNORE INTO {pairs} VALUES (?, ?)", (token, document.number))


def _row(document: SessionDocument) -> tuple[Any, ...]:
    values = {name: getattr(document, name) for name in COLUMNS}
    values["tokens"], values["shown"] = b"".join(document.tokens), json.dumps(document.shown)
    return tuple(values.values())


def _documents(db: sqlite3.Connection, generation: int, numbers: Sequence[int]) -> list[SessionDocument]:
    """The documents with these numbers, in any order."""
    marks = ", ".join("?" * len(numbers))
    sql = f"SELECT {', '.join(COLUMNS)} FROM documents_{generation} WHERE number IN ({marks})"
    return [_read_row(row) for row in db.execute(sql, numbers)]


def _read_row(row: tuple[Any, ...]) -> SessionDocument:
    values = dict(zip(COLUMNS, row, strict=True))
    values["sealed"], values["held"] = bool(values["sealed"]), bool(values["held"])
    values["tokens"], values["shown"] = _split(values["tokens"]), json.loads(values["shown"])
    return SessionDocument(**values)


def _split(tokens: bytes) -> tuple[bytes, ...]:
    return tuple(tokens[at : at + TOKEN_BYTES] for at in range(0, len(tokens), TOKEN_BYTES))
