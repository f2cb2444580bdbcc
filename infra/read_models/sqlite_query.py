"""Writes the SQL of a page: which condition finds its sessions, and which only sifts them.

SQLite takes one index for a table. A condition with few sessions finds them; then they are sorted. If each
condition fits many sessions, the index of the order is walked, until the page is full. A unary plus keeps
SQLite from an index.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from schemas.ports.read_models import SORT_FIELDS, SessionFilter, SessionQuery, StateTotals

FEW = 5000
"""Sessions that are sorted in a few milliseconds."""
TIME_MOST_US = 2**53
SUMS = ("chunks", "plain_bytes", "sealed_bytes", "duration_us")
HALF = 26
"""Bits of the lower half of a number, of which there are 53."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of a filter, and its values."""

    sifting: str
    """SQL that takes no index."""
    values: tuple[Any, ...]
    finding: str = ""
    """SQL that takes an index; empty: there is none."""
    counted: str = ""
    """What holds a row for each session that fits, found by an index."""


def conditions(wanted: SessionFilter, generation: int) -> Iterator[Condition]:
    """Yield the conditions of a filter."""
    documents, tokens = f"documents_{generation}", f"tokens_{generation}"

    def indexed(sql: str, values: tuple[Any, ...]) -> Condition:
        """sql: a plus in place of `~` keeps SQLite from the index."""
        finding = sql.replace("~", "")
        return Condition(sql.replace("~", "+"), values, finding, f"{documents} WHERE {finding}")

    if wanted.states:
        yield indexed(f"~state IN ({', '.join('?' * len(wanted.states))})", wanted.states)
    if wanted.host:
        yield indexed("~host = ?", (wanted.host,))
    if wanted.opened_by:
        yield indexed("~opened_by = ?", (wanted.opened_by,))
    if wanted.from_us is not None or wanted.before_us is not None:
        low = -TIME_MOST_US if wanted.from_us is None else wanted.from_us
        high = TIME_MOST_US if wanted.before_us is None else wanted.before_us
        yield indexed("~created_us >= ? AND ~created_us < ?", (low, high))
    if wanted.text:
        yield Condition("instr(session, ?) > 0", (wanted.text,))
    if wanted.sealed is not None:
        yield Condition("+sealed = ?", (wanted.sealed,))
    for token in wanted.tokens:
        yield Condition(
            f"EXISTS (SELECT 1 FROM {tokens} AS t WHERE t.token = ? AND t.number = documents.number)",
            (token,),
            f"number IN (SELECT number FROM {tokens} WHERE token = ?)",
            f"{tokens} WHERE token = ?",
        )


def page(db: sqlite3.Connection, query: SessionQuery, generation: int) -> tuple[str, tuple[Any, ...]]:
    """Return the SELECT of the numbers on a page, in order, and its values."""
    source = f"documents_{generation} AS documents"
    found = [*conditions(query.filter, generation)]
    rarest = _rarest(db, found)
    sql = [one.finding if one is rarest else one.sifting for one in found]
    values = [value for one in found for value in one.values]
    field, direction = SORT_FIELDS[query.sort], "DESC" if query.descending else "ASC"
    if query.after is not None:
        operator = "<" if query.descending else ">"
        if field == "number":
            sql.append(f"number {operator} ?")
            values.append(query.after.number)
        else:
            sql.append(f"({field}, number) {operator} (?, ?)")
            values += query.after
    order = "number" if field == "number" else f"{field} {direction}, number"
    where = f"WHERE {' AND '.join(sql)} " if sql else ""
    return (
        f"SELECT number FROM {source} {where}ORDER BY {order} {direction} LIMIT ?",
        (*values, query.limit),
    )


def totals(db: sqlite3.Connection, wanted: SessionFilter, generation: int) -> list[StateTotals]:
    """Return the sums by state, in order of its name."""
    found = [*conditions(wanted, generation)]
    where = f"WHERE {' AND '.join(one.finding or one.sifting for one in found)} " if found else ""
    rows = f"FROM documents_{generation} AS documents {where}GROUP BY state ORDER BY state"
    values = tuple(value for one in found for value in one.values)
    try:
        whole = ", ".join(f"sum({name})" for name in SUMS)
        return [StateTotals(*row) for row in db.execute(f"SELECT state, count(*), {whole} {rows}", values)]
    except sqlite3.OperationalError as error:
        if "overflow" not in str(error):
            raise
    # A sum beyond 2^63 is an error of SQLite. In two halves it takes twice as long.
    halves = ", ".join(f"sum({name} >> {HALF}), sum({name} & {2**HALF - 1})" for name in SUMS)
    return [
        _joined(*row) for row in db.execute(f"SELECT state, count(*), {halves} {rows}", values).fetchall()
    ]


def _joined(state: str, sessions: int, *halves: int) -> StateTotals:
    pairs = zip(halves[::2], halves[1::2], strict=True)
    return StateTotals(state, sessions, *((high << HALF) + low for high, low in pairs))


def _rarest(db: sqlite3.Connection, found: list[Condition]) -> Condition | None:
    """Return the condition with the fewest sessions; None: each has FEW or more."""
    fewest, rarest = FEW, None
    for one in found:
        if one.counted:
            sql = f"SELECT count(*) FROM (SELECT 1 FROM {one.counted} LIMIT {FEW})"
            (count,) = db.execute(sql, one.values).fetchone()
            if count < fewest:
                fewest, rarest = count, one
    return rarest
