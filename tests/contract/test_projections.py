"""Read models made from a real log, in both stores: personal fields, rebuilds, replays."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from handlers.lifecycle.session import Session, evolve, initial
from infra.jetstream import Jet
from schemas import subjects
from schemas.errors import Conflict, Unavailable
from schemas.events import commands
from schemas.events.details import Details
from schemas.ports.read_models import SessionDocument, SessionQuery, Views
from streams.event_store import topology
from streams.event_store.session_log import read_event
from streams.keys.held_keys import HeldKeys
from streams.projections import projector
from tests.support.servers.described import Described
from tests.support.servers.secantus import Secantus
from tests.support.servers.stores import STORES, Opened, store


@pytest.fixture(autouse=True)
async def _log(jet: Jet) -> None:
    await topology.declare(jet, 2 << 30)


@pytest.fixture
def world(jet: Jet, tmp_path: Path) -> Described:
    return Described(jet, tmp_path)


@pytest.fixture(params=STORES)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    kind = str(request.param)
    server: Secantus | None = request.getfixturevalue("mongodb") if kind == "mongodb" else None
    return store(kind, tmp_path, server.url if server else "")


def names(page: dict[str, Any]) -> list[str]:
    return [one["session"] for one in page["sessions"]]


async def all_of(views: Views) -> list[SessionDocument]:
    return (await views.sessions(SessionQuery(limit=500))).documents


async def history(world: Described) -> None:
    """Sessions in every kind of state."""
    fields = Details(name="Evening till", owner="zanzibar@example", tags=("audit",), project="Shop")
    for number in range(12):
        name = f"s-{number:02}"
        await world.open(name, replace_name(fields, f"till {number}") if number % 3 else None)
        if number % 4:
            await world.start(name)
        if number % 4 == 2:
            await world.seal(name, number)
        if number % 4 == 3:
            await world.order(commands.Error, name, reason="disk")
        if number % 5 == 4:
            await world.destroy(name)
    await world.change("s-01", fields)
    await world.order(commands.ChangeHold, "s-02", held=True, reason="court")


def replace_name(fields: Details, name: str) -> Details:
    return fields.model_copy(update={"name": name})


async def test_a_session_is_found_by_its_sealed_fields(world: Described, opened: Opened) -> None:
    """Breaks: a person cannot find a recording by its owner, its tags or its name."""
    await world.open(
        "till-1", Details(name="Evening Audit", owner="zanzibar-ada", tags=("Red",), project="Shop")
    )
    await world.open(
        "till-2", Details(name="Morning", owner="zanzibar-grace", environment="Test"), who="grace"
    )
    await world.open("till-3", None)
    async with world.projected(opened()) as listed:
        for asked, wanted in (
            ({"owner": "zanzibar-ada"}, ["till-1"]),
            ({"owner": "Zanzibar-Ada"}, []),
            ({"tags": ("RED",)}, ["till-1"]),
            ({"name": "eve aud"}, ["till-1"]),
            ({"name": "ve"}, []),
            ({"project": "shop"}, ["till-1"]),
            ({"environment": "test", "owner": "zanzibar-grace"}, ["till-2"]),
            ({"environment": "test", "owner": "zanzibar-ada"}, []),
            ({"opened_by": "grace"}, ["till-2"]),
        ):
            assert names(await listed.page(asked)) == wanted, asked
        page = await listed.page({"details": True})
        shown = {one["session"]: one["details"] for one in page["sessions"]}
        assert (shown["till-1"]["owner"], shown["till-2"]["name"], shown["till-3"]) == (
            "zanzibar-ada",
            "Morning",
            None,
        )


async def test_a_duration_is_that_of_the_recording(world: Described, opened: Opened) -> None:
    """Breaks: a list that is sorted by duration shows how old recordings are."""
    for name in ("runs", "sealed", "failed", "recovered", "new"):
        await world.open(name, None)
    for name in ("runs", "sealed", "failed", "recovered"):
        await world.start(name)
    await world.seal("sealed", 2)
    await world.order(commands.Error, "failed", reason="disk")
    await world.order(commands.Error, "recovered", reason="disk")
    await world.order(commands.Recover, "recovered", chunks=0)
    async with world.projected(opened()) as listed:
        page = await listed.page({"sort": "duration"})
        durations = {one["session"]: one["duration_us"] for one in page["sessions"]}
        assert 0 < durations["sealed"] < durations["failed"]
        assert (durations["runs"], durations["recovered"], durations["new"]) == (0, 0, 0)


async def test_changed_fields_are_found_and_the_former_are_not(world: Described, opened: Opened) -> None:
    """Breaks: a session that was given to another owner stays in the list of the former one."""
    await world.open("till-1", Details(owner="zanzibar-ada"))
    async with world.projected(opened()) as listed:
        await world.change("till-1", Details(owner="zanzibar-grace"))
        assert names(await listed.page({"owner": "zanzibar-grace"})) == ["till-1"]
        assert names(await listed.page({"owner": "zanzibar-ada"})) == []


async def test_fields_leave_with_their_session(world: Described, opened: Opened) -> None:
    """Breaks: a destroyed session is still found by its owner, or its sealed fields stay in the store."""
    await world.open("till-1", Details(owner="zanzibar-ada"))
    views = opened()
    async with world.projected(views) as listed:
        assert names(await listed.page({"owner": "zanzibar-ada"})) == ["till-1"]
        await world.destroy("till-1")
        assert names(await listed.page({"owner": "zanzibar-ada"})) == []
        page = await listed.page({"details": True})
        assert (page["sessions"][0]["state"], page["sessions"][0]["details"]) == ("DESTROYED", None)
        (left,) = await all_of(views)
        assert (left.details, left.tokens) == (b"", ())


async def test_a_key_that_is_lost_hides_its_own_session_alone(
    world: Described, opened: Opened, tmp_path: Path
) -> None:
    """Breaks: one lost key file, and no session created after it is ever listed."""
    session = await world.open("till-1", Details(owner="zanzibar-ada"))
    (tmp_path / "keys" / "sessions" / session.uid.hex()[:2] / f"{session.uid.hex()}.key").unlink()
    await world.open("till-2", Details(owner="zanzibar-ada"))
    async with world.projected(opened()) as listed:
        assert names(await listed.page({"owner": "zanzibar-ada"})) == ["till-2"]
        page = await listed.page({"details": True})
        assert names(page) == ["till-2", "till-1"]
        assert page["sessions"][1]["details"] is None


async def test_a_key_that_cannot_be_read_for_a_moment_hides_nothing_for_good(
    world: Described, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: the disk of the keys hangs for a second, and a session is never found by its owner again."""
    await world.open("till-1", Details(owner="zanzibar-ada"))
    monkeypatch.setattr(projector, "RETRY_S", 0.01)
    hold, failures = world.keys.hold, [Unavailable("the disk hangs", code="disk.io")]

    async def fails_once(uid: bytes, key_id: bytes = b"") -> HeldKeys | None:
        if failures:
            raise failures.pop()
        return await hold(uid, key_id)

    monkeypatch.setattr(world.keys, "hold", fails_once)
    async with world.projected(opened()) as listed:
        assert failures == []
        assert names(await listed.page({"owner": "zanzibar-ada"})) == ["till-1"]


async def test_a_rebuild_gives_the_same_documents(world: Described, opened: Opened) -> None:
    """Breaks: read models that are made anew differ from those that followed the log."""
    views = opened()
    async with world.projected(views):
        await history(world)
        await wait_for_all(world, views)
        before, active = await all_of(views), await views.active()
        done = await world.rebuild(opened())
        assert await all_of(views) == before
        assert (await views.active()).number > active.number
        assert done.documents >= len(before) == 12
        await world.open("after", Details(owner="zanzibar-ada"))
        assert names(await world.listed(views).page({"limit": 1})) == ["after"], "the projector goes on"


async def wait_for_all(world: Described, views: Views) -> None:
    async with asyncio.timeout(60):
        while (await world.listed(views).page({"limit": 1}))["behind"]:  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.02)


async def test_any_redelivery_order_and_replay_give_the_same_documents(
    world: Described, opened: Opened
) -> None:
    """Breaks: after a reconnection or a replay a list shows a session as it was, or twice, or not at all."""
    await history(world)
    states = [state for number in range(12) for state in await folds(world, f"s-{number:02}")]
    newest = {state.id: state for state in states}
    wanted = sorted(await world.documents.of([*newest.values()]), key=lambda one: -one.number)
    for seed in range(15):
        chance = random.Random(seed)
        delivered = states + chance.sample(states, len(states) // 2)
        chance.shuffle(delivered)
        writers = [opened(), opened()]
        generation = (await writers[0].begin(f"replay {seed}")).number
        while delivered:
            some, delivered = delivered[:7], delivered[7:]
            position = max(state.last_seq for state in some)
            await chance.choice(writers).apply(generation, await world.documents.of(some), position)
        assert await all_of(writers[0]) == wanted
        assert (await writers[1].active()).position == max(state.last_seq for state in states)
        await asyncio.gather(*(one.close() for one in writers))


async def folds(world: Described, name: str) -> list[Session]:
    """A session after each of its events."""
    session, states = initial(name), []
    async for message in world.jet.read_all(subjects.LIFECYCLE, subjects.lifecycle(name)):
        session = evolve(session, read_event(message.data), message.seq)
        states.append(session)
    return states


@pytest.mark.parametrize("call", ["build", "apply", "switch"])
async def test_the_old_read_models_answer_when_a_rebuild_dies(
    world: Described, opened: Opened, call: str
) -> None:
    """Breaks: a rebuild that is killed anywhere leaves half a list, or none."""
    views = opened()
    await history(world)
    async with world.projected(views):
        before = await all_of(views)
        builder: Any = opened()
        real: Callable[..., Awaitable[Any]] = getattr(builder, call)

        async def dies(*arguments: Any) -> None:
            await real(*arguments)
            raise SystemError("killed")

        setattr(builder, call, dies)
        with pytest.raises(SystemError, match="killed"):
            await world.rebuild(builder)
        assert await all_of(views) == before
        await world.open("after", None)
        assert names(await world.listed(views).page({"limit": 1})) == ["after"]
        await world.rebuild(opened())
        assert (await all_of(views))[1:] == before


async def test_of_two_rebuilds_the_later_one_counts(world: Described, opened: Opened) -> None:
    """Breaks: two operators rebuild at once, and the list is made of halves."""
    await history(world)
    views = opened()
    async with world.projected(views):
        before = await all_of(views)
        first = asyncio.create_task(world.rebuild(opened()))
        second = asyncio.create_task(world.rebuild(opened()))
        done = await asyncio.gather(first, second, return_exceptions=True)
        assert [one for one in done if isinstance(one, BaseException) and not isinstance(one, Conflict)] == []
        assert sum(not isinstance(one, BaseException) for one in done) >= 1
        assert await all_of(views) == before
