"""A recording that runs, and what is done to its session from outside: real server, worker and conductor."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from infra.jetstream import Jet
from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.format.fragment import Kind, parse
from schemas.ports.messages import Message
from streams.cli.board import View
from streams.conductor import host_watch
from streams.event_store.recordings import Recordings
from streams.host import publisher
from streams.host import record_session as recorder
from streams.host.record_session import Sent, record_session
from streams.host.session_start import start_session
from streams.pipeline.record.recording import Recording
from streams.roles.services import run_worker
from tests.support.machine.waiting import PATIENCE_S
from tests.support.pipeline.both_verifiers import verified
from tests.support.pipeline.conducted import SETTINGS, World, running, system

BLOCK = bytes(60_000)


class Endless:
    """A source that never waits and never ends by itself."""

    def __init__(self) -> None:
        self._stopped = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self._stopped:
            yield BLOCK
            await asyncio.sleep(0)

    def stop(self) -> None:
        self._stopped = True


@asynccontextmanager
async def recording(
    world: World, session: str = "demo-01", stop: asyncio.Event | None = None
) -> AsyncIterator["asyncio.Task[Sent]"]:
    """`lucid record` at the full rate of its host, once some of it is stored. stop: its Ctrl-C."""
    grant = await start_session(world.jet, world.here.identity, "host-1", session, SETTINGS)
    view = View(world.jet, session)
    stop = stop or asyncio.Event()
    task = asyncio.create_task(record_session(world.jet, grant, Endless(), "opaque", view, stop))
    await world.stored(session, 2)
    assert not task.done()
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def kinds(world: World, session: str = "demo-01") -> list[Kind]:
    found = (await Recordings.open(world.jet)).read_all(subjects.recording("host-1", session))
    return [parse(message.data).header.kind async for message in found]


async def test_an_abort_ends_a_recording_whose_host_sends_as_fast_as_it_can(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: `sessions stop --abort` ends nothing while the host sends: end.busy."""
    monkeypatch.setattr(host_watch, "REST_S", 3.0)  # a disk may take long for what is under way
    monkeypatch.setattr(host_watch, "GRACE_S", PATIENCE_S)
    async with system(server, tmp_path) as world, recording(world) as task:
        await world.ask("abort", "demo-01", reason="operator")
        await world.until("demo-01", "STOPPED")
        sent = (await task).progress
        manifest = await verified(world, "demo-01", tmp_path)
        assert (manifest.end, manifest.reason) == ("aborted", "operator")
        taken = await kinds(world)
        assert taken.index(Kind.END) == len(taken) - 1, "its host has sent nothing after it"
        assert manifest.totals.fragments == sent.fragments == len(taken) - 1
        assert (await world.ask("show", "demo-01"))["refused"] == []


async def test_a_stop_from_outside_ends_it_in_order(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: the host goes on, or what it has sent since is missing."""
    async with system(server, tmp_path) as world, recording(world) as task:
        await world.ask("stop", "demo-01")
        await world.until("demo-01", "STOPPED")
        sent = (await task).progress
        manifest = await verified(world, "demo-01", tmp_path)
        assert (manifest.end, manifest.totals.fragments) == ("final", sent.fragments)


async def paused(world: World) -> None:
    """Pause it; return when it is, and its host has said so."""
    await world.ask("pause", "demo-01")
    await world.until("demo-01", "PAUSED")
    async with asyncio.timeout(PATIENCE_S):
        while Kind.PAUSE not in await kinds(world):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_paused_recording_makes_no_data_and_goes_on_where_it_rested(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: what is on the screen in a pause is recorded, or what came before it is lost."""
    monkeypatch.setattr(publisher, "TICK_S", 0.2)
    stop = asyncio.Event()
    async with system(server, tmp_path) as world, recording(world, stop=stop) as task:
        await paused(world)
        before = await kinds(world)
        async with asyncio.timeout(PATIENCE_S):
            while len(resting := (await kinds(world))[len(before) :]) < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert set(resting) == {Kind.TICK}
        await world.ask("resume", "demo-01")
        async with asyncio.timeout(PATIENCE_S):
            while Kind.DATA not in (await kinds(world))[len(before) :]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        stop.set()
        sent = (await task).progress
        await world.until("demo-01", "STOPPED")
        manifest = await verified(world, "demo-01", tmp_path)
        assert (manifest.end, manifest.totals.fragments) == ("final", sent.fragments)
        found = await kinds(world)
        assert (found.count(Kind.PAUSE), found.count(Kind.RESUME)) == (1, 1)
        between = found[found.index(Kind.PAUSE) + 1 : found.index(Kind.RESUME)]
        assert set(between) == {Kind.TICK}


async def test_an_error_does_not_end_a_pause(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: what a person has paused is recorded on, because something failed meanwhile."""
    monkeypatch.setattr(publisher, "TICK_S", 0.1)
    async with system(server, tmp_path) as world, recording(world):
        await paused(world)
        await world.ask("error", "demo-01", reason="operator")
        await world.until("demo-01", "ERROR")
        before = await kinds(world)
        async with asyncio.timeout(PATIENCE_S):
            while len(resting := (await kinds(world))[len(before) :]) < 5:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert set(resting) == {Kind.TICK}
        await world.ask("recover", "demo-01")
        async with asyncio.timeout(PATIENCE_S):
            while Kind.DATA not in (await kinds(world))[len(before) :]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def test_who_cannot_hear_the_platform_hears_the_person_still(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: an event that this version cannot read makes Ctrl-C do nothing."""
    stop, unread = asyncio.Event(), asyncio.Event()

    def unreadable(data: bytes) -> None:
        unread.set()
        raise ValueError("unknown event")

    monkeypatch.setattr(recorder, "read_event", unreadable)
    async with system(server, tmp_path) as world, recording(world, stop=stop) as task:
        await unread.wait()
        assert not task.done()
        stop.set()
        await asyncio.wait_for(task, PATIENCE_S)
        await world.until("demo-01", "STOPPED")
        assert (await verified(world, "demo-01", tmp_path)).end == "final"


@pytest.mark.parametrize("how", ["stop", "abort", "host"])
async def test_a_paused_recording_can_be_ended(server: NatsServer, tmp_path: Path, how: str) -> None:
    """Breaks: whoever pauses a session must resume it before it can end, and nobody is told."""
    stop = asyncio.Event()
    async with system(server, tmp_path) as world, recording(world, stop=stop) as task:
        await paused(world)
        if how == "host":
            stop.set()
        else:
            await world.ask(how, "demo-01")
        sent = (await task).progress
        await world.until("demo-01", "STOPPED")
        manifest = await verified(world, "demo-01", tmp_path)
        assert manifest.end == ("aborted" if how == "abort" else "final")
        assert manifest.totals.fragments == sent.fragments
        found = await kinds(world)
        assert Kind.DATA not in found[found.index(Kind.PAUSE) : found.index(Kind.RESUME)]


@pytest.mark.parametrize("doubled", [False, True], ids=["its end", "a double after its end"])
async def test_what_a_host_sends_in_a_pause_is_kept_and_its_end_is_heard_after_a_restart(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, doubled: bool
) -> None:
    """Breaks: a host that does not listen loses what it sends in a pause, or is never sealed."""
    pause, heard = Recording.pause, asyncio.Event()

    def hear(recording: Recording, paused: bool) -> None:
        pause(recording, paused)
        if paused:
            heard.set()

    monkeypatch.setattr(Recording, "pause", hear)
    async with system(server, tmp_path, worker=False) as world:
        async with running(run_worker, world):
            host = await world.start("demo-01")
            await host.record(12)
            await world.stored("demo-01", 2)
            await world.ask("pause", "demo-01")
            await world.until("demo-01", "PAUSED")
            await asyncio.wait_for(heard.wait(), PATIENCE_S)
            recorded = (await world.ask("show", "demo-01"))["recorded"]
            await host.record(12)
            await asyncio.sleep(0.5)
            assert (await world.ask("show", "demo-01"))["recorded"] == recorded
        await host.final()
        if doubled:
            await world.jet.publish(subjects.recording("host-1", "demo-01"), host.sent[-2])
        async with running(run_worker, world):
            await world.until("demo-01", "STOPPED")
        manifest = await verified(world, "demo-01", tmp_path)
        assert (manifest.end, manifest.totals.fragments) == ("final", len(host.sent))
        assert manifest.gaps == ()


async def test_a_resume_that_comes_while_an_ending_is_looked_for_loses_nothing(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: what the stream holds of a pause is declared lost."""
    batch, pause = Jet.batch, Recording.pause
    asked, resumed = asyncio.Event(), asyncio.Event()

    async def slow(jet: Jet, stream: str, *what: Any, **more: Any) -> tuple[list[Message], bool]:
        if stream.startswith(subjects.RECORDINGS):
            asked.set()
            await resumed.wait()
        return await batch(jet, stream, *what, **more)

    def paused(recording: Recording, paused: bool) -> None:
        pause(recording, paused)
        if not paused:
            resumed.set()

    monkeypatch.setattr(Jet, "batch", slow)
    monkeypatch.setattr(Recording, "pause", paused)
    async with system(server, tmp_path, worker=False) as world:
        host = await world.start("demo-01")
        await host.record(6)
        await world.ask("pause", "demo-01")
        await world.until("demo-01", "PAUSED")
        async with running(run_worker, world):
            await asyncio.wait_for(asked.wait(), PATIENCE_S)
            await world.ask("resume", "demo-01")
            await asyncio.wait_for(resumed.wait(), PATIENCE_S)
            await host.record(6)
            await host.final()
            await world.until("demo-01", "STOPPED")
        manifest = await verified(world, "demo-01", tmp_path)
        assert manifest.totals.fragments == len(host.sent)
        assert manifest.gaps == ()
