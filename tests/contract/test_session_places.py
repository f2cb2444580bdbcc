"""The places of sessions that a process remembers: how many, and of which log. Real server."""

from collections.abc import Sequence

import pytest

from handlers.lifecycle.session import Session
from infra.jetstream import Jet
from schemas import subjects
from schemas.events.chunk import Dead
from schemas.events.session import Created, State
from streams.control.where import Where, WhereAsked
from streams.event_store import topology
from streams.event_store.recordings import Recordings
from streams.projections import session_places
from streams.projections.session_places import PlacesOfSessions
from tests.support.pipeline.chunk_events import events_of

STEPS = ("recorded", "chunked", "compressed", "encrypted", "proven", "stored")
STORAGE = 1 << 30


@pytest.fixture(autouse=True)
async def _streams(jet: Jet) -> None:
    await topology.declare(jet, STORAGE)


def session(name: str, uid: bytes = bytes(16), state: str = State.ACTIVE) -> Session:
    return Session(name, state=state, created=Created.model_construct(uid=uid, host="h"))


async def send(jet: Jet, one: Session, index: int, steps: Sequence[str] = STEPS) -> None:
    for step, event in zip(STEPS, events_of(index, session=one.id, uid=one.uid), strict=True):
        if step in steps:
            await jet.publish(subjects.chunk(step, one.id), event.model_dump_json().encode())


async def bury(jet: Jet, one: Session, index: int) -> None:
    letter = Dead(stage="store", session=one.id, index=index, code="chunk.tag", message="m")
    await jet.publish(subjects.dead("store", one.id), letter.model_dump_json().encode())


async def stages(places: PlacesOfSessions, one: Session) -> dict[str, int]:
    async with places.of(one) as found:
        return found.chunks.stages({})


async def restore(jet: Jet, stream: str) -> None:
    """Put an empty stream in the place of this one."""
    await jet.request(f"$JS.API.STREAM.DELETE.{stream}", b"")
    await topology.declare(jet, STORAGE)


async def test_short_sessions_do_not_stay_for_ever(jet: Jet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: a process that was asked for a hundred thousand short sessions holds all of them."""
    monkeypatch.setattr(session_places, "SESSIONS_KEPT", 4)
    places = PlacesOfSessions(jet)
    for number in range(12):
        one = session(f"s-{number}")
        await send(jet, one, 0)
        assert await stages(places, one) == {"stored": 1}
    assert list(places._known) == [f"s-{number}" for number in range(8, 12)]
    assert places._held == 4


async def test_long_sessions_share_their_places(jet: Jet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: the sum of chunks drifts, and the memory of a process grows, or it forgets every session."""
    monkeypatch.setattr(session_places, "PLACES_KEPT", 6)
    places, all_of_them = PlacesOfSessions(jet), [session(f"s-{number}") for number in range(4)]
    for index in range(4):
        for one in all_of_them:
            await send(jet, one, index)
            assert await stages(places, one) == {"stored": index + 1}
            held = {name: len(known.places.chunks.places) for name, known in places._known.items()}
            assert places._held == sum(held.values()) <= 6
            assert one.id in held


async def test_an_ended_session_is_forgotten(jet: Jet) -> None:
    """Breaks: the chunks of a finished recording stay in the memory of each process that showed it."""
    where, one = Where(await Recordings.open(jet)), session("s-1")
    await send(jet, one, 0)
    assert (await where.summary(one))["recorded"] == 1
    assert "s-1" in where._places._known
    await where.page(session("s-1", state=State.DESTROYED), WhereAsked(session="s-1"))
    assert not where._places._known
    assert where._places._held == 0


async def test_a_name_that_was_created_again_shows_no_chunk_of_before(jet: Jet) -> None:
    """Breaks: after the log was restored, a session shows the chunks of another one of the same name."""
    places, first, second = PlacesOfSessions(jet), session("s-1"), session("s-1", b"2" * 16)
    await send(jet, first, 0)
    await send(jet, first, 1)
    assert await stages(places, first) == {"stored": 2}
    await send(jet, second, 0, STEPS[:1])
    assert await stages(places, second) == {"chunk": 1}
    assert places._held == 1


@pytest.mark.parametrize("others", [0, 30])
async def test_a_restored_stream_of_chunks_is_read_anew(jet: Jet, others: int) -> None:
    """Breaks: after a restore, `where` tells stages for ever that no event says. others: events since."""
    places, one, other = PlacesOfSessions(jet), session("s-1"), session("s-2")
    await send(jet, one, 0)
    assert await stages(places, one) == {"stored": 1}
    assert await stages(places, other) == {}
    await restore(jet, subjects.CHUNKS)
    await send(jet, one, 0, STEPS[:2])
    await send(jet, other, 0, STEPS[:1])
    for _ in range(others):
        await send(jet, session("s-3"), 0, STEPS[:1])
    assert await stages(places, one) == {"compress": 1}
    assert await stages(places, other) == {"chunk": 1}


@pytest.mark.parametrize("others", [0, 30])
async def test_a_restored_stream_of_dead_letters_is_read_anew(jet: Jet, others: int) -> None:
    """Breaks: after a restore, `where` shows a chunk as dead of which no letter tells."""
    places, one, other = PlacesOfSessions(jet), session("s-1"), session("s-2")
    for index in range(2):
        await send(jet, one, index, STEPS[:5])
        await bury(jet, one, index)
    assert await stages(places, one) == {"dead": 2}
    assert await stages(places, other) == {}
    await restore(jet, subjects.DEAD)
    await bury(jet, other, 0)
    for _ in range(others):
        await bury(jet, session("s-3"), 0)
    assert await stages(places, one) == {"store": 2}
    assert await stages(places, other) == {"dead": 1}
