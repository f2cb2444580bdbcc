"""The port of the read models: documents derived from the log, which can be made again at any time.

1. One document a session, by the session's number. Of two documents with one number the higher `seq` counts.
2. No personal field is in the clear: `details` is the sealed blob of the log, and `tokens` are keyed hashes.
3. Documents are in generations: one is active and answers; at most one is being built beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, Protocol


@dataclass(frozen=True, slots=True)
class SessionDocument:
    """One session. Times in µs since 1970, 0: never. Counts are those of the newest seal, else 0."""

    number: int
    """Stream sequence of the session's first event: sessions are numbered in this order."""
    seq: int
    """Stream sequence of the last event in it."""
    session: str
    state: str
    host: str
    opened_by: str = ""
    """Label of the person who opened it; empty: a host did."""
    reason: str = "none"
    """Of the last transition."""
    created_us: int = 0
    started_us: int = 0
    moved_us: int = 0
    """Time of the last transition."""
    duration_us: int = 0
    """From start to end; 0 while it runs."""
    sealed: bool = False
    held: bool = False
    chunks: int = 0
    plain_bytes: int = 0
    sealed_bytes: int = 0
    revision: int = 0
    """Of `details`; 0: there are none."""
    details: bytes = b""
    """The sealed personal fields (handlers/crypto/details.py); empty: none, or the session is destroyed."""
    tokens: tuple[bytes, ...] = ()
    """Sorted (handlers/crypto/blind_index.py); empty: none, or the session is destroyed."""
    shown: Mapping[str, Any] = field(default_factory=dict)
    """The JSON members that a list shows."""


class Sort(StrEnum):
    """The orders of a list. Equal ones are ordered by number."""

    CREATED = "created"
    MOVED = "moved"
    STARTED = "started"
    SIZE = "size"
    DURATION = "duration"


SORT_FIELDS = {
    Sort.CREATED: "number",
    Sort.MOVED: "moved_us",
    Sort.STARTED: "started_us",
    Sort.SIZE: "plain_bytes",
    Sort.DURATION: "duration_us",
}
"""The field of a document that each order compares."""


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """Which sessions are wanted; a session fits if every given condition does. Empty: all."""

    states: tuple[str, ...] = ()
    """One of them."""
    host: str = ""
    opened_by: str = ""
    text: str = ""
    """Part of the session's name."""
    from_us: int | None = None
    """Created then or later."""
    before_us: int | None = None
    """Created earlier."""
    sealed: bool | None = None
    tokens: tuple[bytes, ...] = ()
    """All of them."""


class Place(NamedTuple):
    """The place of a document in an order: the value that the order compares, and its number."""

    value: int
    number: int


@dataclass(frozen=True, slots=True)
class SessionQuery:
    """A page: at most `limit` documents behind the place `after`. None: from the beginning."""

    filter: SessionFilter = SessionFilter()
    sort: Sort = Sort.CREATED
    descending: bool = True
    after: Place | None = None
    limit: int = 100


class Generation(NamedTuple):
    """One generation of documents, and the position in the log up to which it contains all events."""

    number: int = 0
    """0: there is none yet."""
    position: int = 0


class SessionPage(NamedTuple):
    """Documents in the asked order, and the generation that gave them."""

    documents: list[SessionDocument]
    generation: Generation


@dataclass(frozen=True, slots=True)
class StateTotals:
    """Sums over the sessions of one state."""

    state: str
    sessions: int
    chunks: int
    plain_bytes: int
    sealed_bytes: int
    duration_us: int


class Views(Protocol):
    """The read models of an installation. Several processes may call at once.

    Every call raises Unavailable (views.failed) and NoSpace (disk.full).
    """

    @property
    def kind(self) -> str:
        """The kind of store, for people."""

    async def begin(self, source: str) -> Generation:
        """Return the active generation of this source, a new one if the active one is of another source.

        source: names the log and the index key of the tokens. Documents of other sources are dropped.
        """

    async def apply(self, generation: int, documents: Sequence[SessionDocument], position: int) -> None:
        """Store documents, then the position. A lower position leaves the stored one.

        A second call changes nothing. After a crash the position never covers a document that is not stored.
        Raises Conflict (views.generation): this generation is neither active nor being built any more.
        """

    async def active(self) -> Generation:
        """Return the active generation."""

    async def sessions(self, query: SessionQuery) -> SessionPage:
        """Return the page that a query asks for."""

    async def session(self, session: str) -> SessionDocument | None:
        """Return one session's document; None: there is none."""

    async def totals(self, wanted: SessionFilter) -> list[StateTotals]:
        """Return the sums of each state that has a fitting session, in order of its name."""

    async def count(self) -> int:
        """Return the number of documents."""

    async def build(self, source: str) -> Generation:
        """Begin a new generation beside the active one. One that was being built is given up."""

    async def switch(self, generation: int) -> bool:
        """Make the built generation the active one and drop the former one.

        False: it lacks events that the active one contains; apply them first.
        Raises Conflict (views.generation), as `apply`.
        """

    async def close(self) -> None:
        """Close connections. Later calls open them again."""
