"""Owns when each host was last heard: whether its recording has grown since the last look.

1. One question to the server tells of all recordings; no fragment is read for it.
2. Times are of this process's clock. After a restart a host counts as heard now, once, so that no session is
   called silent for the time in which nobody listened.
"""

from handlers.session import Session
from schemas import subjects
from schemas.lifecycle_events import State
from schemas.ports import Reader


class Hearing:
    """What this process has heard since `began_us`."""

    def __init__(self, jet: Reader, began_us: int) -> None:
        self._jet, self._began_us = jet, began_us
        self._counts: dict[str, int] | None = None
        self._heard_us: dict[str, int] = {}

    async def listen(self, now_us: int) -> None:
        """Note which recordings have grown since the last call. Raises Unavailable."""
        found = await self._jet.subject_counts(subjects.RECORDINGS, subjects.ALL_RECORDINGS)
        counts = {subjects.session_of(subject): count for subject, count in found.items()}
        if self._counts is not None:
            grown = {name for name, count in counts.items() if count > self._counts.get(name, 0)}
            self._heard_us.update(dict.fromkeys(grown, now_us))
        self._counts = counts

    def heard_us(self, session: Session) -> int:
        """When the session's host was last heard; 0: not since this process listens, and it was silent."""
        heard_us = self._heard_us.get(session.id, 0)
        return heard_us if session.state == State.ERROR else max(heard_us, self._began_us)
