"""Owns when each host was last heard: whether its recording has grown since the last look.

1. Few questions to the server tell of all recordings; only of one that was purged is a fragment read.
2. Times are of this process's clock. After a restart a host counts as heard now, once, so that no session is
   called silent for the time in which nobody listened.
"""

from collections.abc import Iterable

from handlers.session import Session
from schemas import subjects
from schemas.lifecycle_events import State
from schemas.ports import Reader
from streams.counts import recording_counts


class Hearing:
    """What this process has heard since `began_us`."""

    def __init__(self, jet: Reader, began_us: int) -> None:
        self._jet, self._began_us = jet, began_us
        self._counts: dict[str, int] | None = None
        """By subject."""
        self._last_seq = 0
        """What the last call had to see of the stream."""
        self._heard_us: dict[str, int] = {}

    async def listen(self, now_us: int, sessions: Iterable[Session]) -> None:
        """Note which recordings of these sessions have grown since the last call. Raises Unavailable."""
        last_seq = (await self._jet.info(subjects.RECORDINGS)).last_seq
        counts = await recording_counts(self._jet, sessions)
        if self._counts is not None:
            for subject, count in counts.items():
                before = self._counts.get(subject, 0)
                if count > before or (count < before and await self._is_newer(subject)):
                    self._heard_us[subjects.session_of(subject)] = now_us
        self._counts, self._last_seq = counts, last_seq

    async def _is_newer(self, subject: str) -> bool:
        """Whether something came since the last call, of a recording that was purged meanwhile."""
        last = await self._jet.last(subjects.RECORDINGS, subject)
        return last is not None and last.seq > self._last_seq

    def heard_us(self, session: Session) -> int:
        """When the session's host was last heard; 0: not since this process listens, and it was silent."""
        heard_us = self._heard_us.get(session.id, 0)
        return heard_us if session.state == State.ERROR else max(heard_us, self._began_us)
