"""A recording that runs, and what is done to its session from outside: real server, worker and conductor."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from conducted import SETTINGS, World, system
from test_conducted import verified

from infra.nats_server import NatsServer
from schemas import subjects
from schemas.fragment import Kind, parse
from streams.cli.session_run import View, record_session
from streams.enrol import start_session
from streams.publisher import Progress

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
async def recording(world: World, session: str = "demo-01") -> AsyncIterator["asyncio.Task[Progress]"]:
    """`lucid record` at the full rate of its host, once some of it is stored."""
    grant = await start_session(world.jet, world.here.identity, "host-1", session, SETTINGS)
    view = View(world.jet, session)
    task = asyncio.create_task(record_session(world.jet, grant, Endless(), "opaque", view, asyncio.Event()))
    await world.stored(session, 2)
    assert not task.done()
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def kinds(world: World, session: str = "demo-01") -> list[Kind]:
    found = world.jet.read_all(subjects.RECORDINGS, subjects.recording("host-1", session))
    return [parse(message.data).header.kind async for message in found]


async def test_an_abort_ends_a_recording_whose_host_sends_as_fast_as_it_can(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: `sessions stop --abort` ends nothing while the host sends: end.busy."""
    async with system(server, tmp_path) as world, recording(world) as task:
        await world.ask("abort", "demo-01", reason="operator")
        await world.until("demo-01", "STOPPED")
        sent = await task
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
        sent = await task
        manifest = await verified(world, "demo-01", tmp_path)
        assert (manifest.end, manifest.totals.fragments) == ("final", sent.fragments)
