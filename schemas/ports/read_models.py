"""The port of the read models: lists that are made from the log, and made anew at will."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class SessionRow:
    """One session in the list. `number` orders it; of two rows of one number the higher `seq` counts."""

    number: int
    seq: int
    session: str
    state: str
    host: str
    shown: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SessionQuery:
    """Which sessions, the newest first. Empty: any. `after`: only lower numbers; 0: from the newest on."""

    state: str = ""
    host: str = ""
    text: str = ""
    """A part of the session's name."""
    after: int = 0
    limit: int = 100


class Views(Protocol):
    """The read models of one service. Every call blocks; threads may call at once.

    Raises Unavailable (views.failed), NoSpace (disk.full).
    """

    def begin(self, log_id: str) -> int:
        """The position up to which this log is in here. What was made from another log goes."""

    def apply(self, rows: Sequence[SessionRow], position: int) -> None:
        """Take over rows, and that the log is in here up to `position`; all of it or nothing.

        Safe to repeat, and to do from several processes.
        """

    def sessions(self, query: SessionQuery) -> list[tuple[int, dict[str, Any]]]:
        """Number and `shown` of each session that fits, the newest first."""
