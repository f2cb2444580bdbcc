"""The context of a stage: the `recorded` event, the session's settings and its keys."""

from dataclasses import dataclass
from typing import Any

from handlers.crypto.keys import SessionKeys
from schemas.events.chunk import Recorded
from schemas.events.session import SessionSettings


@dataclass(frozen=True, slots=True)
class Context:
    """The context of one chunk. sequence: stream sequence of `recorded` in CHUNKS."""

    recorded: Recorded
    sequence: int
    settings: SessionSettings
    keys: SessionKeys

    def claim(self, run: int) -> dict[str, Any]:
        """Return the members that every stage's event has."""
        recorded = self.recorded
        return {
            "session": recorded.session,
            "uid": recorded.uid,
            "run": run,
            "index": recorded.index,
            "recorded": self.sequence,
        }
