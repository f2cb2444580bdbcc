"""Repeats calls that failed. Each retry policy of the services is one row here.

1. Only the errors that a policy names are retried; every other error, and a cancellation, reaches the caller.
2. A policy without a bound retries for ever. Otherwise the last error is raised when the attempts or the
   seconds are spent.
3. Time passes by `sleep` and `clock_s` alone, which a test replaces.

Delays elsewhere:
- The drivers cannot import this room. Their `Backoff` rows stand beside the calls that they pace:
  infra/jetstream/{consumer,follower,jet,reads}.py, infra/processes/children.py.
- A loop that looks again after a while has a constant of its own: QUOTA_RETRY_S in streams/host/publisher.py,
  RETRY_S in streams/{pipeline/record/recording,projections/projector,retention/live_source}.py.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import tenacity

from schemas.config.backoff import Backoff
from schemas.config.logs import logger
from schemas.errors import Conflict, LucidError, Retryable, Unavailable

T = TypeVar("T")

log = logger("lucid.retry")
sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
clock_s: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class Policy:
    """Which errors are retried, after which delays, and how often."""

    backoff: Backoff
    errors: type[LucidError] = Retryable
    attempts: int = 0
    """At most so many calls; 0: no bound."""
    for_s: float = 0
    """No call begins later than this after the first; 0: no bound."""


OUTAGE = Policy(Backoff(0.05, 5.0, jitter=0.5))
"""The server or a disk does not answer: the caller waits for it without a bound."""
SEND = Policy(Backoff(0.1, 5.0, jitter=0.5))
"""The outbox of a publisher sends a fragment again until it is acknowledged."""
START = Policy(Backoff(0.05, 0.05), Unavailable, for_s=60)
"""A start takes less than 0.1 s: all desktops of one host may begin in the same minute. A command service
that restarts is back in that time, too."""
ACKNOWLEDGE = Policy(Backoff(0, 0), attempts=3)
"""A lost ack only brings the message again."""
HOST_ABORT = Policy(Backoff(0.5, 0.5), Unavailable, for_s=5)
"""A host asks the platform to end a session that it cannot end itself."""
GIVE_UP = Policy(Backoff(0.05, 0.05), LucidError)
"""A host destroys a session that it will not ask for again; the caller sets the bound."""
GIVE_UP_REFUSED = Policy(GIVE_UP.backoff)
"""The same after its creation was refused: nothing is under way, so an absent session stays absent."""
ABORT = Policy(Backoff(2.0, 2.0), Unavailable)
"""The stage `record` ends a recording in the session's log, and the server does not answer."""
LOG_CONFLICT = Policy(Backoff(0.002, 0.2, jitter=1.0), Conflict, attempts=60)
"""Each conflict means that another writer of the same log has succeeded."""
LOG_OUTAGE = Policy(Backoff(0.2, 0.2), Unavailable, attempts=3)
"""The same writer, while the server does not answer: a command must be answered in time."""

JOB = Backoff(0.2, 10.0, jitter=0.5)
"""Between two deliveries of a message whose job failed."""
SESSION = Backoff(0.2, 10.0)
"""Between two tries of the conductor for one session."""
AUDIT = Backoff(0.2, 2.0)
"""Between two tries of outcomes that the audit chain does not take."""


async def retry(
    call: Callable[[], Awaitable[T]],
    policy: Policy = OUTAGE,
    *,
    when: Callable[[LucidError], bool] = lambda _: True,
    on_error: Callable[[LucidError], None] | None = None,
) -> T:
    """Call `call`, again after each failure as the policy says, and return its result.

    when: which errors of the policy's kind are retried. on_error: receives each retried error, instead of
    the log.
    """

    began_s = clock_s()
    try:
        return await call()
    except policy.errors as error:
        first = [error]

    async def attempt() -> T:
        if first:  # most calls succeed at once, and cost no retry machinery
            raise first.pop()
        return await call()

    def report(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if on_error is not None and isinstance(error, LucidError):
            on_error(error)
        else:
            level = logging.DEBUG if isinstance(error, Conflict) else logging.WARNING
            log.log(level, "call_retried", attempt=state.attempt_number, error=error)

    def is_over(state: tenacity.RetryCallState) -> bool:
        return 0 < policy.attempts <= state.attempt_number or 0 < policy.for_s < clock_s() - began_s

    retrying = tenacity.AsyncRetrying(
        sleep=lambda seconds: sleep(seconds),
        stop=is_over,
        wait=lambda state: policy.backoff.delay_s(state.attempt_number),
        retry=tenacity.retry_if_exception(lambda error: isinstance(error, policy.errors) and when(error)),
        before_sleep=report,
        reraise=True,
    )
    return await retrying(attempt)


async def retry_conflicts(call: Callable[[], Awaitable[T]], log_name: str) -> T:
    """Repeat a call that reads a log, decides, and appends to it. Raises Conflict (log.busy)."""
    try:
        return await retry(call, LOG_CONFLICT)
    except Conflict:
        text = f"the log of {log_name} is too busy: {LOG_CONFLICT.attempts} conflicts in a row"
        raise Conflict(text, code="log.busy", hint="repeat the command") from None
