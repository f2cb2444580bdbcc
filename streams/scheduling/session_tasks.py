"""Runs one task for each session: one at a time, again after each wake, and again after an outage.

1. A wake is never lost. It starts the task, or the running task is followed by another run.
2. A failure of one session reaches no other session.
3. `trouble` tells the caller which error keeps a session waiting.
4. All sessions may run at once; the job itself takes turns (fair_slots.py).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

from schemas.config.logs import logger
from schemas.errors import Retryable
from streams.scheduling.retry import SESSION

CALM_S = 0.1
"""Between two runs of one session: one run handles all chunks that were stored meanwhile."""

log = logger("lucid.conductor")


class Trouble(NamedTuple):
    """The error that keeps a session waiting. Times of `time.monotonic`."""

    error: Retryable
    since_s: float
    """When the first failure of the present row of failures came."""
    last_s: float
    """When the newest failure came."""


@dataclass(slots=True)
class _Task:
    failures: int = 0
    trouble: Trouble | None = None
    busy: bool = False
    again: bool = False
    retry: asyncio.TimerHandle | None = None


class SessionTasks:
    """`job` does the work of one session. Used from one event loop only."""

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
        """The outage that ended the session's last run; None: it ended otherwise, or there was none."""
        task = self._tasks.get(session_id)
        return task.trouble if task is not None else None

    def troubles(self) -> dict[str, Trouble]:
        """As `trouble`, of every session that has one."""
        return {name: task.trouble for name, task in self._tasks.items() if task.trouble is not None}

    async def close(self) -> None:
        """Cancel the running tasks; no other task starts."""
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
            # A bug that one session meets must not stop the others. The next sweep tries it again.
            task.trouble = None
            log.exception("conducting_failed", session=session_id)
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
        # A copy: the stack trace of an error holds what its job worked with, keys among them.
        plain = type(error)(error.message, code=error.code, hint=error.hint, place=error.place)
        task.trouble = Trouble(plain, task.trouble.since_s if task.trouble else now_s, now_s)
        log.warning("conducting_waits", session=session_id, delay_s=round(delay_s, 1), error=plain)
        if task.retry is not None:
            task.retry.cancel()  # one timer for each session, however often it is woken
        task.retry = asyncio.get_running_loop().call_later(delay_s, self.wake, session_id)
