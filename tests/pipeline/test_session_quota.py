"""How many sessions there may be at once, and how many of one host: a real server and conductor."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.errors import LucidError, RefusedByState, Unavailable
from schemas.events.details import Details
from streams.bench.finished import FinishedHost
from streams.control.client import call
from streams.control.running_places import RunningPlaces
from streams.event_store.host_log import CREATES_OF_HOST, CREATES_WAIT
from streams.host.session_start import About, start_session
from streams.roles.services import run_conductor
from tests.support.machine.waiting import PATIENCE_S
from tests.support.pipeline.conducted import SETTINGS, World, connected, running

PLACES, AT_ONCE = 3, CREATES_OF_HOST + CREATES_WAIT


@asynccontextmanager
async def system(server: NatsServer, path: Path, **settings: Any) -> AsyncIterator[World]:
    async with connected(server, path) as world:
        world.settings = replace(world.settings, **settings)
        async with running(run_conductor, world):
            await world.answered()
            yield world


async def create(world: World, host: FinishedHost, name: str) -> str:
    """Empty, or the code of the refusal."""
    try:
        await call(world.jet, "create", host.create(name, 1).model_dump(mode="json"))
    except RefusedByState as refused:
        return refused.code
    return ""


async def test_one_host_takes_its_share_of_places_and_no_more(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: one host that only creates sessions fills all memory, and nobody else may record."""
    async with system(server, tmp_path, max_host_sessions=PLACES) as world:
        greedy, honest = FinishedHost("greedy"), FinishedHost("honest")
        asked = [create(world, greedy, f"greedy-{number}") for number in range(AT_ONCE)]
        told = await asyncio.gather(*asked)
        refused = ["host.places"] * (AT_ONCE - PLACES)
        assert sorted(told) == [""] * PLACES + refused, "also of those that ask at once"
        assert await create(world, honest, "honest-1") == ""
        shown = [one["session"] for one in (await call(world.jet, "list", {"host": "greedy"}))["sessions"]]
        await world.ask("destroy", shown[0])
        assert await create(world, greedy, "greedy-again") == ""
        assert await create(world, greedy, "greedy-more") == "host.places"


async def test_asking_again_for_a_session_takes_no_second_place(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: a host whose answer was lost is refused the session that it has."""
    async with system(server, tmp_path, max_host_sessions=1) as world:
        body = FinishedHost("host-1").create("demo-01", 1).model_dump(mode="json")
        for _ in range(3):
            assert (await call(world.jet, "create", body))["state"] == "CREATED"


async def test_no_host_takes_the_places_of_another(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: who knows a host's name keeps it from recording."""
    async with system(server, tmp_path, max_host_sessions=1) as world:
        real, false = FinishedHost("host-1"), FinishedHost("host-1")
        assert await create(world, real, "demo-01") == ""
        await world.ask("destroy", "demo-01")
        false.key = FinishedHost("other").key
        false.public = false.key.public_key().public_bytes_raw()
        stolen = [
            call(world.jet, "create", false.create(f"stolen-{n}", 1).model_dump(mode="json"))
            for n in range(9)
        ]
        told = await asyncio.gather(*stolen, create(world, real, "demo-02"), return_exceptions=True)
        assert told[-1] == ""
        assert {getattr(one, "code", one) for one in told[:-1]} == {"host.key"}


async def test_no_more_sessions_start_than_may_run_however_many_ask_at_once(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: a floor of desks that start together starves every recording."""
    async with system(server, tmp_path, max_sessions=PLACES) as world:
        host = FinishedHost("host-1")
        for number in range(12):
            assert await create(world, host, f"desk-{number}") == ""
        starts = [world.ask("start", f"desk-{number}", who="host-1") for number in range(12)]
        told = await asyncio.gather(*starts, return_exceptions=True)
        codes = sorted(getattr(one, "code", "") for one in told)
        assert codes == [""] * PLACES + ["sessions.limit"] * 9
        assert (await call(world.jet, "room", {}))["data"] > 0


async def starts(world: World, names: list[str]) -> list[str]:
    """The refusal of each start, or an empty text; all ask at once, and the queue group shares them."""
    starts = [world.ask("start", name) for name in names]
    told = await asyncio.gather(*starts, return_exceptions=True)
    return sorted(getattr(one, "code", "") for one in told)


async def test_two_conductors_together_start_no_more_than_may_run(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: with a second conductor for safety, the limit of running sessions is twice what was set."""
    async with system(server, tmp_path, max_sessions=PLACES) as world, running(run_conductor, world):
        decided: set[int] = set()
        take = RunningPlaces.take

        async def taking(places: RunningPlaces, session: str) -> None:
            decided.add(id(places))
            await take(places, session)

        names = [f"desk-{number}" for number in range(64)]
        for at, name in enumerate(names):
            assert await create(world, FinishedHost(f"host-{at}"), name) == ""
        with patch.object(RunningPlaces, "take", taking):
            told = await starts(world, names)
            assert told == [""] * PLACES + ["sessions.limit"] * (64 - PLACES)
            shown = await asyncio.gather(*(world.ask("show", name) for name in names))
            active = [one["session"] for one in shown if one["state"] == "ACTIVE"]
            assert len(active) == PLACES
            await world.ask("error", active[0])
            waiting = [name for name in names if name not in active]
            for _ in range(100):  # at first neither may have heard of the free place
                if told := (await starts(world, waiting)).count(""):
                    break
                await asyncio.sleep(0.05)
        assert told == 1
        assert len(decided) == 2, "both conductors were asked"


async def test_a_start_that_is_refused_or_repeated_takes_no_place(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: one client that starts an ended session again and again holds the last place."""
    async with system(server, tmp_path, max_sessions=1) as world:
        taken: list[str] = []
        take = RunningPlaces.take

        async def taking(places: RunningPlaces, session: str) -> None:
            taken.append(session)
            await take(places, session)

        monkeypatch.setattr(RunningPlaces, "take", taking)
        for name in ("gone", "runs"):
            assert await create(world, FinishedHost(name), name) == ""
        await world.ask("destroy", "gone")
        for name, code in (("gone", "state.refused"), ("absent", "session.absent")):
            with pytest.raises(LucidError) as refused:
                await world.ask("start", name)
            assert refused.value.code == code
        for _ in range(2):
            assert (await world.ask("start", "runs", cause="start-1"))["state"] == "ACTIVE"
        assert taken == ["runs"]


async def test_without_a_place_nothing_is_given_up(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: a refused recovery ends the recording of a host, or gives up its chunks, all the same."""
    async with system(server, tmp_path, max_sessions=1) as world:
        await world.start("demo-01")
        await world.ask("error", "demo-01", reason="HOST_SILENT")
        assert await create(world, FinishedHost("other"), "demo-02") == ""
        await world.ask("start", "demo-02")
        before = await world.ask("show", "demo-01")
        with pytest.raises(RefusedByState, match=r"sessions\.limit"):
            await world.ask("recover", "demo-01", accept_loss=True)
        assert (await world.ask("show", "demo-01"))["events"] == before["events"]
        await world.ask("error", "demo-02")
        assert (await world.ask("recover", "demo-01", accept_loss=True))["end"]["end"] == "host_lost"


class Halted:
    """A connection on which one command's answer never comes; sent: whether the command is carried out."""

    def __init__(self, jet: Any, command: str, sent: bool) -> None:
        self._jet, self._command, self._sent = jet, command, sent
        self.reached = asyncio.Event()

    async def request(self, subject: str, data: bytes, timeout_s: float, *more: Any) -> bytes:
        if subject != subjects.command(self._command):
            return bytes(await self._jet.request(subject, data, timeout_s))
        if self._sent:
            await self._jet.request(subject, data, timeout_s)
        self.reached.set()
        await asyncio.Event().wait()
        raise AssertionError


async def give_up(world: World, host: str, jet: Any) -> None:
    """Ask for demo-01 as a host, and be cancelled where the connection halts."""
    starting = asyncio.create_task(start_session(jet, world.here.identity, host, "demo-01", SETTINGS))
    async with asyncio.timeout(PATIENCE_S):
        await jet.reached.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting


@pytest.mark.parametrize(("command", "sent"), [("create", True), ("start", False), ("start", True)])
async def test_who_gives_up_before_the_recording_begins_leaves_no_session(
    server: NatsServer, tmp_path: Path, command: str, sent: bool
) -> None:
    """Breaks: each Ctrl-C at the wrong moment takes a place of its host for good, until none is left."""
    async with system(server, tmp_path, max_host_sessions=1) as world:
        await give_up(world, "host-1", Halted(world.jet, command, sent))
        assert (await world.ask("show", "demo-01"))["state"] == "DESTROYED"
        await world.start("demo-02")


async def test_a_session_whose_name_nobody_chose_goes_with_its_refusal(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: who tries again every minute while the system is full has no place left after it."""
    async with system(server, tmp_path, max_sessions=1) as world:
        await world.start("demo-01")
        for once in (True, False):
            name = f"once-{once}"
            asked = start_session(world.jet, world.here.identity, "host-1", name, SETTINGS, once=once)
            with pytest.raises(RefusedByState, match=r"sessions\.limit"):
                await asked
            assert (await world.ask("show", name))["state"] == ("DESTROYED" if once else "CREATED")


async def test_what_another_has_under_the_name_stays(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: who gives up a recording destroys the one that had its name first."""
    async with system(server, tmp_path) as world:
        await world.start("demo-01")
        await give_up(world, "host-2", Halted(world.jet, "create", False))
        assert (await world.ask("show", "demo-01"))["state"] == "ACTIVE"


class Counted:
    """A connection that counts the requests of each command."""

    def __init__(self, jet: Any) -> None:
        self._jet = jet
        self.sent: Counter[str] = Counter()

    async def request(self, subject: str, data: bytes, timeout_s: float, *more: Any) -> bytes:
        self.sent[subject] += 1
        return bytes(await self._jet.request(subject, data, timeout_s))


class Late(Counted):
    """The answer to `create` is lost, and the command is carried out after the next request."""

    async def request(self, subject: str, data: bytes, timeout_s: float, *more: Any) -> bytes:
        if subject == subjects.command("create"):
            self.held = subject, data, timeout_s
            raise Unavailable("the connection is lost", code="command.answer")
        try:
            return await super().request(subject, data, timeout_s)
        finally:
            if sum(self.sent.values()) == 1:
                await super().request(*self.held)


NAMED = About(details=Details(name="Zanzibar shift"))


async def test_a_refused_recording_with_a_name_keeps_no_other_waiting(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: each refused start with a title stops all starts of its host for five seconds."""
    async with system(server, tmp_path, max_host_sessions=1) as world:
        await world.start("demo-01")
        jet: Any = Counted(world.jet)
        asked = start_session(
            *(jet, world.here.identity, "host-1", "demo-02", SETTINGS), once=True, about=NAMED
        )
        with pytest.raises(RefusedByState, match=r"host\.places"):
            await asked
        assert jet.sent == {subjects.command("create"): 1, subjects.command("show"): 1}


async def test_a_session_that_appears_after_its_answer_was_lost_goes_too(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: a create that is carried out late takes a place of its host for good."""
    async with system(server, tmp_path, max_host_sessions=1) as world:
        jet: Any = Late(world.jet)
        asked = start_session(
            *(jet, world.here.identity, "host-1", "demo-01", SETTINGS), once=True, about=NAMED
        )
        with pytest.raises(Unavailable, match=r"command\.answer"):
            await asked
        assert (await world.ask("show", "demo-01"))["state"] == "DESTROYED"
