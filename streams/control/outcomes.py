"""Waits until a session reaches the state that a command asks for, and reports the error that delays it.

1. The conductor advances sessions, and retries failures. If a failure lasts, the waiting command reports it:
   the same kind of error with the same code and hint. Nothing is lost.
2. A failure counts only if it happened after the command began. A command wakes the conductor, which tries at
   once: after the cause is gone, a repeated command does not report the old failure.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pydantic_core import to_json

from handlers.lifecycle.session import Session
from schemas.errors import Unavailable
from streams.event_store.session_directory import SessionDirectory
from streams.scheduling.session_tasks import Trouble

LASTS_S = 5.0
"""A shorter failure is not reported: a server that restarts takes less."""
LOOK_S = 0.2
DELAYS_MOST, MESSAGE_MOST = 500, 1000
"""An answer stays far below the largest message."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Lets commands wait for sessions. One for each process."""

    directory: SessionDirectory
    trouble: Callable[[str], Trouble | None]
    troubles: Callable[[], dict[str, Trouble]]
    wake: Callable[[str], None]

    async def until(
        self, session_id: str, timeout_s: float, wanted: Callable[[Session], bool], what: str
    ) -> Session:
        """The session once `wanted` is true of it. what: the state that is missing, as "is not destroyed".

        Raises the Retryable that delays it for LASTS_S, Unavailable (command.slow).
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
                    text = f"session {session_id} {what} yet, and goes on by itself when this passes"
                    raise type(error)(
                        f"{text}: {error.message}", code=error.code, hint=error.hint, place=error.place
                    )
        finally:
            reaching.cancel()
        raise Unavailable(
            f"session {session_id} {what} after {timeout_s:g} s; it goes on",
            code="command.slow",
            hint=f"lucid sessions show {session_id}",
        )

    async def delay_of(self, session_id: str) -> dict[str, Any]:
        """The error that delays a session: code, message, hint; empty: there is none."""
        trouble = self.trouble(session_id)
        return _delay(trouble) if trouble is not None and _lasts(trouble) else {}

    def delays(self) -> bytes:
        """The JSON of `delay_of` by session, of every one that has a delay, but not more than DELAYS_MOST."""
        lasting = ((name, trouble) for name, trouble in self.troubles().items() if _lasts(trouble))
        return to_json({name: _delay(trouble) for name, trouble in islice(lasting, DELAYS_MOST)})


def _lasts(trouble: Trouble) -> bool:
    return time.monotonic() > trouble.since_s + LASTS_S


def _delay(trouble: Trouble) -> dict[str, Any]:
    error = trouble.error
    return {"code": error.code, "message": error.message[:MESSAGE_MOST], "hint": error.hint}
