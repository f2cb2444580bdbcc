"""Destroys sessions whose retention period is over.

    retained until a time in the past, nothing runs, no legal hold → DestroyOrdered (reason `retention`)

1. The list of all sessions names the candidates; each one's log decides. The list may lag: then the next
   round finds the session.
2. The order is one event of the log, written by `conductor`. The conductor erases the key and the data from
   there on, after a crash anywhere too. Any number of processes may order at once.
3. The period of a recording begins with its seal. An unsealed one is never destroyed here, in ERROR neither.
4. A round costs one page of the list for each 500 sessions at rest. The pause after it is a hundred times as
   long, so the rounds take one percent of a thread.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from handlers.lifecycle.next_action import is_expired
from schemas.config.logs import logger
from schemas.errors import Conflict, LucidError, Rejected
from schemas.events import commands
from schemas.events.session import State
from streams.event_store.session_log import SessionLog
from streams.scheduling import clock
from streams.scheduling.clock import Clock

ROUND_S = 60.0
"""The least pause between two rounds."""
PAUSES = 100
PAGE = 500
AT_REST = (State.STOPPED, State.ERROR, State.CREATED)
WHO, REASON = "conductor", "retention"

Page = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""Answers the query `list`."""

log = logger("lucid.retention")


@dataclass(frozen=True, slots=True)
class ExpiredSessions:
    """Runs until cancelled. It keeps nothing."""

    page: Page
    log: SessionLog
    clock_us: Clock = clock.now_us

    async def run(self) -> None:
        """Order destructions, round after round."""
        loop, pause_s = asyncio.get_running_loop(), ROUND_S
        while True:
            await asyncio.sleep(pause_s)
            began_s = loop.time()
            try:
                await self.order_due()
            except LucidError as error:
                log.warning("expiry_waits", error=error)
            except Exception:
                log.exception("expiry_failed")
            pause_s = max(ROUND_S, PAUSES * (loop.time() - began_s))

    async def order_due(self) -> list[str]:
        """Order the destruction of every session that is due, and return their names. Raises Retryable."""
        ordered = []
        async for name in self._candidates():
            try:
                if await self._order(name):
                    ordered.append(name)
            except (Conflict, Rejected) as error:
                # It has moved on, or cannot be read: the next round looks again, and no other one waits.
                log.warning("expiry_refused", session=name, error=error)
        return ordered

    async def _candidates(self) -> AsyncIterator[str]:
        now_us = self.clock_us()
        for state in AT_REST:
            after = 0
            while True:
                answer = await self.page({"state": state, "after": after, "limit": PAGE})
                for one in answer["sessions"]:
                    if 0 < one["retained_until_us"] <= now_us and not one["held"]:
                        yield one["session"]
                after = answer["next"]
                if not after:
                    break

    async def _order(self, name: str) -> bool:
        session, now_us = await self.log.load(name), self.clock_us()
        if not is_expired(session, now_us):
            return False
        kind = commands.Destroy if session.state == State.CREATED else commands.Cleanup
        await self.log.execute(
            kind(
                session=name,
                at_us=now_us,
                who=WHO,
                cause=f"{WHO}.{REASON}.{session.last_seq}",
                reason=REASON,
            ),
            session,
        )
        log.info("session_expired", session=name, retained_until_us=session.retained_until_us)
        return True
