"""Asks the platform to end a recording whose host has ended it in a way that cannot be taken.

1. A host that has sent its final sends no more. Where that final breaks a rule, its session would stay open
   for days: so it is aborted, with the reason, and all that came before is sealed.
2. The abort is the usual one, an `end` in the stream behind all that was sent: every fold of the stream ends
   at the same fragment.
3. The fold's checkpoint says that a final was refused: after a crash the same is asked again, harmlessly.
"""

import asyncio
import logging

from handlers.stages.record import Fold
from schemas.errors import LucidError, Unavailable
from schemas.ports import Jet
from streams.commands import call

AGAIN_S = 2.0

log = logging.getLogger("lucid.record")


class RefusedFinal:
    """One session's; it asks at most once at a time, until it is answered."""

    def __init__(self, jet: Jet, session: str) -> None:
        self._jet, self._session = jet, session
        self._asking: asyncio.Task[None] | None = None

    def heed(self, fold: Fold) -> None:
        """Ask for the end, in the background, when the fold has refused a final and goes on."""
        if self._asking is None and fold.refused_final and not fold.ended:
            self._asking = asyncio.create_task(self._ask(fold.refused_final), name=f"end {self._session}")

    async def close(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _ask(self, reason: str) -> None:
        log.warning("final_refused session=%s code=%s", self._session, reason)
        while True:
            try:
                await call(self._jet, "abort", {"session": self._session, "reason": reason})
                return
            except Unavailable as error:
                log.warning("abort_unanswered session=%s error=%s", self._session, error)
            except LucidError:  # refused: it is ended already
                return
            await asyncio.sleep(AGAIN_S)
