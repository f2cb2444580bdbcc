"""The places of running sessions: several processes over one real server, each with its own directory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from infra.jetstream import Jet
from schemas import subjects
from schemas.errors import RefusedByState, Unavailable
from streams.control.running_places import PLACE_S, RunningPlaces
from streams.control.session_quota import SessionQuota
from streams.event_store import topology
from streams.event_store.session_directory import SessionDirectory
from tests.support.machine.waiting import PATIENCE_S
from tests.support.servers.open_log import begin


class Clock:
    """The time of all processes of a test."""

    now_us = 10**15

    def __call__(self) -> int:
        return self.now_us


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
async def _streams(jet: Jet) -> None:
    await topology.declare(jet, 2 << 30)


@asynccontextmanager
async def process(jet: Jet, clock: Clock, most: int = 1) -> AsyncIterator[RunningPlaces]:
    directory = SessionDirectory(jet)
    following = asyncio.create_task(directory.run())
    try:
        async with asyncio.timeout(PATIENCE_S):
            await directory.ready()
            yield RunningPlaces(directory, jet, most, clock)
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
        clock.now_us += int(PLACE_S * 1e6) + 1
        assert await refusal(other, "two") == ""


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
        clock.now_us += int(PLACE_S * 1e6) + 1
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
