"""A part of the platform that stands still, or a bug of our own, stops neither the scrub nor its answers."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.errors import Busy
from schemas.events.scrub import Alarm, Pass, Place, ScrubState, read_state, write_state
from streams.control.client import call
from streams.evidence import scrub, scrub_pass, stream_ends
from streams.evidence.scrub_pass import ScrubPass
from streams.evidence.stream_ends import StreamEnds
from streams.evidence.stream_proof import Looked, StreamProof
from streams.projections.projector import Projector
from streams.roles.services import run_conductor, run_worker
from tests.support.machine.waiting import PATIENCE_S
from tests.support.pipeline.conducted import World, running
from tests.support.pipeline.scrubbed import (
    asked,
    one_pass,
    open_alarms,
    scrubbing,
    sealed,
    shown,
    system,
    written_at_once,
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits."""
    written_at_once(monkeypatch)


async def wished(world: World, session: str) -> dict[str, Any]:
    return await call(world.jet, "scrub_now", {"session": session}, PATIENCE_S)


async def test_a_list_that_does_not_follow_is_an_alarm_and_everything_else_is_proven(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: the read models stand still, and nothing is proven any more, and nobody is told."""
    monkeypatch.setattr(scrub_pass, "LIST_WAIT_S", 0.3)

    async def stuck(_: Projector) -> None:
        await asyncio.Event().wait()

    async with scrubbing(server, tmp_path) as world, running(run_worker, world):
        with monkeypatch.context() as during:
            during.setattr(Projector, "run", stuck)
            async with running(run_conductor, world):
                await world.answered()
                await sealed(world)
                host = await world.start("demo-02")
                await host.record(24)
                found = await one_pass(world)
                assert open_alarms(found) == [("", "list of sessions", "list.behind")]
                assert found["last"]["sessions"] == 0
                assert found["last"]["chunks"] > 0, "the running session was checked"
                assert found["last"]["messages"] > 0, "the streams, too"
        async with running(run_conductor, world):
            await world.answered()
            found = await one_pass(world)
            assert (open_alarms(found), found["last"]["sessions"]) == ([], 1)


async def test_a_bug_in_the_check_of_one_stream_keeps_no_other_from_being_proven(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: one stream that trips us, and no session is proven for six hours."""
    check = StreamProof.check

    async def failing(self: StreamProof, stream: str) -> AsyncIterator[Looked]:
        if stream == subjects.CHUNKS:
            raise RuntimeError("a bug")
        async for looked in check(self, stream):
            yield looked

    async with system(server, tmp_path) as world:
        await sealed(world)
        with monkeypatch.context() as during:
            during.setattr(StreamProof, "check", failing)
            found = await one_pass(world)
        assert open_alarms(found) == [("", f"messages of {subjects.CHUNKS}", "scrub.bug")]
        assert found["last"]["messages"] > 0
        assert open_alarms(await one_pass(world)) == []


async def test_a_session_that_somebody_asks_for_is_checked_while_the_scrub_rests_after_a_bug(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: an engineer asks for a proof after a fault, and the answer comes in six hours."""
    failed = asyncio.Event()

    async def failing(_: ScrubPass) -> None:
        failed.set()
        raise RuntimeError("a bug")

    monkeypatch.setattr(ScrubPass, "run", failing)
    async with system(server, tmp_path) as world:
        await sealed(world)
        await asked(world, now=True)
        async with asyncio.timeout(PATIENCE_S):
            await failed.wait()
        await wished(world, "demo-01")
        assert (await shown(world, lambda found: bool(found["checked"])))["checked"] == ["demo-01"]


async def test_a_session_that_waits_for_its_check_is_never_dropped_in_silence(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a script asks for many proofs, and believes that all of them will be done."""
    monkeypatch.setattr(scrub, "WISHES_MOST", 2)
    go = asyncio.Event()

    async def slow(_: ScrubPass, name: str) -> bool:
        await go.wait()
        return True

    monkeypatch.setattr(ScrubPass, "wished", slow)
    async with system(server, tmp_path) as world:
        for name in ("demo-01", "demo-02", "demo-02"):
            await world.start(name) if name not in (await asked(world))["waiting"] else None
            await wished(world, name)
        await world.start("demo-03")
        with pytest.raises(Busy, match="2 sessions wait"):
            await wished(world, "demo-03")
        go.set()
        await shown(world, lambda found: not found["waiting"])
        assert "demo-03" in (await wished(world, "demo-03"))["waiting"]


async def test_a_pass_that_is_killed_in_the_source_of_a_session_goes_on_in_it(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: the fragments of a long session take longer than the time between two restarts, for ever."""
    async with scrubbing(server, tmp_path) as world, running(run_worker, world):
        async with running(run_conductor, world):
            await world.answered()
            files = await sealed(world)
            whole = (await one_pass(world))["last"]
        # As a kill leaves it: the source of two chunks was checked, and one of them is damaged.
        path = world.data.path / "scrub/state.json"
        current = read_state(path.read_bytes()).current
        place = Place(session="demo-01", seal_no=1, index=len(files), source=2)
        found_before = Alarm(
            session="demo-01", place="source of chunk 0", code="source.missing", text="", since_us=5,
            at_us=5, number=7,
        )  # fmt: skip
        began = Pass(number=7, began_us=current.began_us, marks=current.marks)
        path.write_bytes(write_state(ScrubState(current=began, place=place, alarms=(found_before,))))
        async with running(run_conductor, world):
            await world.answered()
            await asked(world, now=True)
            again = await shown(world, lambda found: bool(found["last"]))
            assert (again["last"]["number"], again["last"]["chunks"]) == (7, 0)
            assert 0 < again["last"]["fragments"] < whole["fragments"]
            assert open_alarms(again) == [("demo-01", "source of chunk 0", "source.missing")]
            found = await one_pass(world)
            assert (found["last"]["fragments"], open_alarms(found)) == (whole["fragments"], [])


async def test_the_ends_of_the_streams_are_watched_in_the_middle_of_a_pass(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a pass lasts for days, and a stream is cut in it and grows again unseen."""
    looks = 0
    look = StreamEnds.look

    def counted(self: StreamEnds) -> AsyncIterator[Any]:
        nonlocal looks
        looks += 1
        return look(self)

    monkeypatch.setattr(StreamEnds, "look", counted)
    monkeypatch.setattr(stream_ends, "WATCH_S", 0.0)
    async with system(server, tmp_path) as world:
        files = await sealed(world)
        before = looks
        await one_pass(world)
        assert looks - before > len(files)
