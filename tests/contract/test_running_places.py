"""The places of running sessions: several processes over one real server, each with its own directory."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import pytest

from infra.jetstream import Jet
from schemas import subjects
from schemas.errors import RefusedByState, Unavailable
from schemas.events import commands
from schemas.ports.messages import StreamInfo
from streams.control.running_places import PLACE_S, RunningPlaces
from streams.control.session_quota import SessionQuota
from streams.event_store import topology
from streams.event_store.session_directory import SessionDirectory
from streams.event_store.session_log import SessionLog
from streams.scheduling.clock import now_us
from tests.support.machine.waiting import PATIENCE_S
from tests.support.servers.open_log import begin, order


class Clock:
    """How far the server's clock was set forward."""

    ahead_us = 0


class Shifted:
    """A connection to a server with such a clock."""

    def __init__(self, jet: Jet, clock: Clock) -> None:
        self._jet, self._clock = jet, clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._jet, name)

    async def info(self, stream: str) -> StreamInfo:
        found = await self._jet.info(stream)
        return replace(found, now_us=found.now_us + self._clock.ahead_us)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
async def _streams(jet: Jet) -> None:
    await topology.declare(jet, 2 << 30)


async def at_once() -> None:
    """Lets a directory go on."""


@asynccontextmanager
async def process(
    jet: Jet, clock: Clock, most: int = 1, pause: Callable[[], Awaitable[object]] = at_once
) -> AsyncIterator[RunningPlaces]:
    directory = SessionDirectory(jet, pause=pause)
    following = asyncio.create_task(directory.run())
    try:
        async with asyncio.timeout(PATIENCE_S):
            await directory.ready()
            yield RunningPlaces(directory, cast("Jet", Shifted(jet, clock)), most)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def refusal(places: RunningPlaces, session: str) -> str:
    """Empty, or the code of the refusal."""
    try:
        await places.take(session)
    except RefusedByState as refused:
        return refused.code
    return ""


async def test_a_crash_between_a_place_and_its_start_gives_the_place_back(jet: Jet, clock: Clock) -> None:
    """Breaks: each crash of a conductor takes a place for good; or a place is given twice meanwhile."""
    async with process(jet, clock) as other:
        async with process(jet, clock) as crashing:
            await crashing.take("one")
        assert await refusal(other, "two") == "sessions.limit"
        assert await refusal(other, "one") == "", "its own host asks again"
        other.give_back("one", None, certain=True)
        clock.ahead_us += int(PLACE_S * 1e6) + 1
        assert await refusal(other, "two") == ""


async def test_the_clock_of_the_server_ends_a_place(
    jet: Jet, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a conductor with a late clock takes a place that is held; a fast one keeps it."""
    for wrong_us in (-3_600_000_000, 3_600_000_000):
        async with process(jet, clock) as other:
            async with process(jet, clock) as crashing:
                with monkeypatch.context() as patched:
                    patched.setattr(
                        "streams.scheduling.clock.now_us", lambda wrong=wrong_us: now_us() + wrong
                    )
                    await crashing.take("one")
            assert await refusal(other, "two") == "sessions.limit"
            clock.ahead_us += int(PLACE_S * 1e6) + 1_000_000
            assert await refusal(other, "two") == ""
            other.give_back("two", None, certain=True)
        clock.ahead_us += int(PLACE_S * 1e6) + 1_000_000


async def test_a_place_does_not_stay_when_the_clock_goes_back(jet: Jet, clock: Clock) -> None:
    """Breaks: the server's clock was a day ahead, and a place of that time is taken for a day."""
    async with process(jet, clock) as other:
        async with process(jet, clock) as crashing:
            clock.ahead_us = 86_400_000_000
            await crashing.take("one")
        assert await refusal(other, "two") == "sessions.limit"
        clock.ahead_us = 0
        assert await refusal(other, "two") == ""


async def test_nothing_is_refused_by_a_directory_that_lags(
    jet: Jet, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a script waits until a session has ended, and its next start is refused."""
    going = asyncio.Event()
    going.set()
    async with process(jet, clock, pause=going.wait) as places:
        directory = places.directory
        await places.take("first")
        started = await begin(jet, "first")
        places.give_back("first", started, certain=False)
        await directory.reached(started.last_seq)
        assert await refusal(places, "second") == "sessions.limit"
        going.clear()
        await directory.reached((await begin(jet, "last-shown", start=False)).last_seq)
        await SessionLog(jet).execute(order(commands.Error, "first"), started)
        caught_up = directory.caught_up

        async def catch_up() -> None:
            going.set()
            await caught_up()

        monkeypatch.setattr(directory, "caught_up", catch_up)
        assert await refusal(places, "second") == ""


async def test_a_start_that_may_be_in_the_log_keeps_its_place(jet: Jet, clock: Clock) -> None:
    """Breaks: an answer of the server is lost, and two sessions run where one may."""
    async with process(jet, clock) as places:
        quota = SessionQuota(places.directory, places)

        async def lost() -> None:
            raise Unavailable("no answer", code="nats.timeout")

        async def refused() -> None:
            raise RefusedByState("no", code="state.refused")

        with pytest.raises(Unavailable):
            await quota.start("one", lost())  # type: ignore[arg-type]
        assert await refusal(places, "two") == "sessions.limit"
        clock.ahead_us += int(PLACE_S * 1e6) + 1
        with pytest.raises(RefusedByState):
            await quota.start("two", refused())  # type: ignore[arg-type]
        assert await refusal(places, "three") == "", "a refusal is certain: it gives the place back at once"


async def test_a_place_counts_until_the_log_shows_its_start(jet: Jet, clock: Clock) -> None:
    """Breaks: between the place and the log a session counts twice, or not at all."""
    async with process(jet, clock, most=2) as one, process(jet, clock, most=2) as other:
        await one.take("first")
        started = await begin(jet, "first")
        one.give_back("first", started, certain=False)
        assert await refusal(other, "second") == ""
        assert await refusal(one, "third") == "sessions.limit"


@pytest.mark.parametrize("lost", ["stream", "places", "nonsense", "older log"])
async def test_places_that_are_lost_stop_no_start(jet: Jet, clock: Clock, lost: str) -> None:
    """Breaks: a damaged stream that is made anew at will keeps every session from starting."""
    async with process(jet, clock, most=2) as places:
        match lost:
            case "stream":
                await jet.request(f"$JS.API.STREAM.DELETE.{subjects.OPEN}", b"")
            case "places":
                await places.take("before")
                await jet.purge(subjects.OPEN, subjects.OPEN_PLACES)
            case "nonsense":
                await jet.publish(subjects.OPEN_PLACES, b"\xff{")
            case "older log":
                await jet.publish(subjects.OPEN_PLACES, b'{"version":1,"position":1000000000,"places":{}}')
        assert await refusal(places, "one") == ""
        if lost != "places":
            assert await refusal(places, "two") == ""
        assert await refusal(places, "three") == "sessions.limit"


async def test_many_places_are_few_messages_and_none_of_them_stays(jet: Jet, clock: Clock) -> None:
    """Breaks: a thousand starts a second wait for a write each, and fill the stream."""
    async with process(jet, clock, most=2000) as places:
        await asyncio.gather(*(places.take(f"s-{number}") for number in range(1000)))
        info = await jet.info(subjects.OPEN)
        assert info.messages <= 3
        message = await jet.last(subjects.OPEN, subjects.OPEN_PLACES)
        assert message is not None
        assert bytes(message.data).count(b'"owner"') == 1000
