"""Runs one task a session: one at a time, again when it was woken meanwhile, and again after an outage.

1. A wake is never lost: it begins the task, or has the running one followed by another.
2. A session's failure reaches no other session.
3. What keeps a session waiting can be asked for (`trouble`): who waits for the session is told.
4. Which work waits for which is the job's own business (fair_slots.py): here every session may run.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

from schemas.errors import Retryable
from streams.scheduling.retry import SESSION

CALM_S = 0.1
"""Between two runs for one session: many chunks are stored in that time, and one look sees them all."""

log = logging.getLogger("lucid.conductor")


class Trouble(NamedTuple):
    """What a session waits for. Times of `time.monotonic`."""

    error: Retryable
    since_s: float
    """When the first of the tries failed that have all failed since."""
    last_s: float
    """When the newest try failed."""


@dataclass(slots=True)
class _Task:
    failures: int = 0
    trouble: Trouble | None = None
    busy: bool = False
    again: bool = False
    retry: asyncio.TimerHandle | None = None


class SessionTasks:
    """`job` brings one session on. Used from one event loop only."""

    def __init__(self, job: Callable[[str], Awaitable[None]]) -> None:
        self._job = job
        self._tasks: dict[str, _Task] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False

    def wake(self, session_id: str) -> None:
        """Run the session's job soon."""
        task = self._tasks.setdefault(session_id, _Task())
        if not task.busy and not task.again:
            self._begin(session_id, task)
        task.again = True

    def trouble(self, session_id: str) -> Trouble | None:
        """Why the session's job did not come to its end the last time; None: it did, or never began."""
        task = self._tasks.get(session_id)
        return task.trouble if task is not None else None

    async def close(self) -> None:
        """Cancel what runs; nothing begins any more."""
        self._closed = True
        for running in self._running:
            running.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _begin(self, session_id: str, task: _Task) -> None:
        if not self._closed:
            task.busy = True
            running = asyncio.get_running_loop().create_task(self._run(session_id, task))
            self._running.add(running)
            running.add_done_callback(self._running.discard)

    async def _run(self, session_id: str, task: _Task) -> None:
        task.again = False
        try:
            await self._job(session_id)
            task.failures, task.trouble = 0, None
        except Retryable as error:
            self._later(session_id, task, error)
        except Exception:
            # A bug in one session's way must not stop the others'; the sweep tries it again.
            log.exception("conducting_failed session=%s", session_id)
        finally:
            task.busy = False
            if task.again:
                asyncio.get_running_loop().call_later(CALM_S, self._begin, session_id, task)
            elif not task.failures:
                self._tasks.pop(session_id, None)

    def _later(self, session_id: str, task: _Task, error: Retryable) -> None:
        task.failures += 1
        delay_s = SESSION.delay_s(task.failures)
        now_s = time.monotonic()
        task.trouble = Trouble(error, task.trouble.since_s if task.trouble else now_s, now_s)
        log.warning("conducting_waits session=%s delay_s=%.1f error=%s", session_id, delay_s, error)
        if task.retry is not None:
            task.retry.cancel()  # one timer a session, however often it is woken between
        task.retry = asyncio.get_running_loop().call_later(delay_s, self.wake, session_id)
