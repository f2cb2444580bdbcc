"""Tells when the scrub last proved a session, from the state that its owner wrote.

Without a state, or with one that cannot be read, no session was ever proven.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from handlers.evidence.proof import SealedLog, proven_log_us, proven_us
from handlers.lifecycle.session import Session
from schemas.config.logs import logger
from schemas.errors import LucidError
from schemas.events.scrub import ScrubState, read_state
from schemas.events.session import State
from schemas.ports.read_models import SessionDocument
from schemas.ports.scrub_place import ScrubPlace

KEPT_S = 2.0
ENDED = (State.CLEANUP, State.DESTROYED)

log = logger("lucid.scrub")


@dataclass(slots=True)
class ProvenTimes:
    """One for each process that answers questions. Used from one event loop."""

    place: ScrubPlace
    _state: ScrubState = field(default_factory=ScrubState)
    _due_s: float = 0.0

    async def of(self, session: Session) -> int:
        """When the session was last proven; 0: never, or nobody knows."""
        return proven_us(await self._read(), session) if session.sealed else 0

    async def of_rows(self, documents: Sequence[SessionDocument]) -> list[int]:
        """As `of`, for each session of a list, as far as the list knows it."""
        state = await self._read()
        return [
            proven_log_us(state, SealedLog(one.session, one.number, one.seq))
            if one.sealed and one.state not in ENDED
            else 0
            for one in documents
        ]

    async def _read(self) -> ScrubState:
        if time.monotonic() >= self._due_s:
            self._due_s = time.monotonic() + KEPT_S
            try:
                raw = await asyncio.to_thread(self.place.read)
                self._state = read_state(raw) if raw else ScrubState()
            except LucidError as error:
                self._state = ScrubState()
                log.warning("scrub_state_unreadable", error=error)
        return self._state
