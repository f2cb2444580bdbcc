"""The retry policies: which errors are retried, how long each wait is, and where it ends."""

import asyncio
import logging
from itertools import pairwise

import pytest

from schemas.config.backoff import Backoff
from schemas.errors import Conflict, LucidError, NoSpace, Rejected, Unavailable
from streams.scheduling import retry as policies
from streams.scheduling.retry import LOG_CONFLICT, Policy, retry, retry_conflicts


class Failing:
    """Fails with these errors in turn, then returns how often it was called."""

    def __init__(self, *errors: LucidError) -> None:
        self.errors, self.calls = list(errors), 0

    async def __call__(self) -> int:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return self.calls


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every wait, in seconds; none of them takes any time."""
    made: list[float] = []

    async def sleep(seconds: float) -> None:
        made.append(seconds)

    monkeypatch.setattr(policies, "sleep", sleep)
    return made


def unavailable() -> Unavailable:
    return Unavailable("no answer", code="nats.timeout")


async def test_an_outage_is_waited_out_with_growing_pauses(waits: list[float]) -> None:
    """Breaks: a server that comes back is asked too often, or never again."""
    call = Failing(*(unavailable() for _ in range(20)), NoSpace("full", code="stream.full"))
    assert await retry(call) == 22
    assert len(waits) == 21
    assert all(0.025 <= wait <= 5.0 for wait in waits)
    assert waits[-1] >= 2.5


async def test_each_retry_is_logged_with_its_number_and_its_error(
    waits: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """Breaks: the log of an outage shows a pattern in place of the attempt and the reason."""
    caplog.set_level(logging.WARNING, "lucid.retry")
    await retry(Failing(unavailable(), unavailable()))
    error = 'error="no answer [nats.timeout]"'
    assert caplog.messages == [f"call_retried attempt=1 {error}", f"call_retried attempt=2 {error}"]


async def test_without_jitter_each_pause_is_twice_the_one_before(waits: list[float]) -> None:
    """Breaks: the pauses are not what the policy says."""
    await retry(Failing(*(unavailable() for _ in range(8))), Policy(Backoff(0.1, 3.0)))
    assert waits[-1] == 3.0
    assert all(later == min(3.0, 2 * earlier) for earlier, later in pairwise(waits))


async def test_what_can_never_succeed_is_not_tried_again(waits: list[float]) -> None:
    """Breaks: a refusal hangs for ever."""
    call = Failing(Rejected("never", code="event.malformed"))
    with pytest.raises(Rejected):
        await retry(call)
    assert (call.calls, waits) == (1, [])


async def test_the_last_error_is_raised_when_the_attempts_are_spent(waits: list[float]) -> None:
    """Breaks: the caller hears of a library instead of the reason."""
    call = Failing(*(unavailable() for _ in range(9)))
    with pytest.raises(Unavailable, match="no answer"):
        await retry(call, Policy(Backoff(0.1, 1.0), attempts=3))
    assert (call.calls, len(waits)) == (3, 2)


async def test_a_log_that_is_too_busy_is_named(waits: list[float]) -> None:
    """Breaks: a writer that never gets through says nothing, or never gives up."""
    call = Failing(*(Conflict("first", code="stream.sequence") for _ in range(100)))
    with pytest.raises(Conflict, match="the log of host a is too busy") as refused:
        await retry_conflicts(call, "host a")
    assert (call.calls, refused.value.code) == (LOG_CONFLICT.attempts, "log.busy")


async def test_cancelling_ends_a_call_that_is_retried() -> None:
    """Breaks: a service cannot be stopped during an outage."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await retry(Failing(*(unavailable() for _ in range(1000))))
