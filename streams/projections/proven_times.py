"""Tells when the scrub last proved a session, from the state that its owner wrote.

Without a state, or with one that cannot be read, no session was ever proven.
"""

import asyncio
import time
from dataclasses import dataclass, field

from handlers.evidence.proof import proven_us
from handlers.lifecycle.session import Session
from schemas.config.logs import logger
from schemas.errors import LucidError
from schemas.events.scrub import ScrubState, read_state
from schemas.ports.scrub_place import ScrubPlace

KEPT_S = 2.0

log = logger("lucid.scrub")


@dataclass(slots=True)
class ProvenTimes:
    """One for each process that answers questions. Used from one event loop."""

    place: ScrubPlace
    _state: ScrubState = field(default_factory=ScrubState)
    _due_s: float = 0.0

    async def of(self, session: Session) -> int:
        """When the session was last proven; 0: never, or nobody knows."""
        if not session.sealed:
            return 0
        if time.monotonic() >= self._due_s:
            self._due_s = time.monotonic() + KEPT_S
            try:
                raw = await asyncio.to_thread(self.place.read)
                self._state = read_state(raw) if raw else ScrubState()
            except LucidError as error:
                self._state = ScrubState()
                log.warning("scrub_state_unreadable", error=error)
        return proven_us(self._state, session)
