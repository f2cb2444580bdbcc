"""Owns what a stage is given beside its input: the `recorded` event, the session's settings and keys."""

from dataclasses import dataclass
from typing import Any

from handlers.crypto.keys import SessionKeys
from schemas.events.chunk import Recorded
from schemas.events.session import SessionSettings


@dataclass(frozen=True, slots=True)
class Context:
    """One chunk's surroundings. `sequence`: stream sequence of `recorded` in CHUNKS."""

    recorded: Recorded
    sequence: int
    settings: SessionSettings
    keys: SessionKeys

    def claim(self, run: int) -> dict[str, Any]:
        """The members that every stage event shares."""
        recorded = self.recorded
        return {
            "session": recorded.session,
            "uid": recorded.uid,
            "run": run,
            "index": recorded.index,
            "recorded": self.sequence,
        }
