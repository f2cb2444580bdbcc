"""The port of the read models: lists derived from the log, which can be rebuilt at any time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class SessionRow:
    """One session in the list, ordered by `number`. Of two rows with one number the higher `seq` counts."""

    number: int
    seq: int
    session: str
    state: str
    host: str
    summary: Mapping[str, Any]
    """The JSON members that a list shows."""


@dataclass(frozen=True, slots=True)
class SessionQuery:
    """A filter for sessions, newest first. Empty: any. after: only lower numbers; 0: from the newest on."""

    state: str = ""
    host: str = ""
    text: str = ""
    """Part of the session's name."""
    after: int = 0
    limit: int = 100


class Views(Protocol):
    """The read models of one service. Calls block; threads may call at once.

    Every call raises Unavailable (views.failed) and NoSpace (disk.full).
    """

    def begin(self, log_id: str) -> int:
        """Return the position in this log up to which rows are applied. Drops the rows of another log."""

    def apply(self, rows: Sequence[SessionRow], position: int) -> None:
        """Store rows and position in one transaction. A lower position leaves the stored one.

        A second call changes nothing. Several processes may call at once.
        """

    def sessions(self, query: SessionQuery) -> list[tuple[int, dict[str, Any]]]:
        """Return number and summary of each session that fits, newest first."""
