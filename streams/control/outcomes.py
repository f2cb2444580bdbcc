"""Waits until a session is as a command wants it, and says what keeps it from getting there.

1. The conductor brings a session on, and tries again what fails. A command that waits tells the person the
   reason when it lasts: the same kind of error with the same code and cure, and that nothing is lost.
2. A reason counts only if a try failed after the command began. A command wakes the conductor, which tries at
   once: one that is repeated when the cause is gone is not answered with what was.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from handlers.lifecycle.session import Session
from schemas.errors import Unavailable
from streams.event_store.session_directory import SessionDirectory
from streams.scheduling.session_tasks import Trouble

LASTS_S = 5.0
"""What is over sooner is nobody's trouble: a server that restarts takes less."""
LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What commands wait with. One for each process."""

    directory: SessionDirectory
    trouble: Callable[[str], Trouble | None]
    wake: Callable[[str], None]

    async def until(
        self, session_id: str, timeout_s: float, wanted: Callable[[Session], bool], what: str
    ) -> Session:
        """The session once it is as wanted. what: to be told, as "is not destroyed".

        Raises the Retryable that keeps it from that for LASTS_S, Unavailable (command.slow).
        """
        began_s = time.monotonic()
        self.wake(session_id)
        reaching = asyncio.ensure_future(self.directory.until(session_id, wanted))
        try:
            while time.monotonic() < began_s + timeout_s:
                await asyncio.wait({reaching}, timeout=LOOK_S)
                if reaching.done():
                    return reaching.result()
                trouble = self.trouble(session_id)
                if trouble and trouble.last_s > began_s and time.monotonic() > trouble.since_s + LASTS_S:
                    error = trouble.error
                    told = f"session {session_id} {what} yet, and goes on by itself when this passes"
                    raise type(error)(
                        f"{told}: {error.message}", code=error.code, hint=error.hint, place=error.place
                    )
        finally:
            reaching.cancel()
        raise Unavailable(
            f"session {session_id} {what} after {timeout_s:g} s; it goes on",
            code="command.slow",
            hint=f"lucid sessions show {session_id}",
        )

    def waits_for(self, session_id: str) -> dict[str, Any]:
        """What is told of a session that waits; empty: it does not."""
        trouble = self.trouble(session_id)
        if trouble is None or time.monotonic() < trouble.since_s + LASTS_S:
            return {}
        error = trouble.error
        return {"waits_for": {"code": error.code, "message": error.message, "hint": error.hint}}
