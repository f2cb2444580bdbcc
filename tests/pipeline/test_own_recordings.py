"""What becomes of a recording of this host that cannot start, or that breaks: a real server and conductor."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from infra.nats_server.server import NatsServer
from schemas.errors import LucidError, NoSpace
from schemas.ports import HostIdentity, Identities, Jet, Source
from schemas.ports.processes import Picture
from streams.host.own_recordings import OpenSource, OwnRecording, OwnRecordings
from streams.host.session_start import NOTHING
from tests.support.machine.waiting import PATIENCE_S
from tests.support.pipeline.conducted import SETTINGS, system

BUG = "recorder.failed"


class Breaking:
    """A source that gives one block, and then breaks as nobody foresaw."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield bytes(1000)
        raise ZeroDivisionError

    def stop(self) -> None: ...


@asynccontextmanager
async def breaking(_: float, __: Picture) -> AsyncIterator[Source]:
    yield Breaking()


@asynccontextmanager
async def unopened(_: float, __: Picture) -> AsyncIterator[Source]:
    raise ZeroDivisionError
    yield


def full_disk(_: str) -> HostIdentity:
    raise NoSpace("the disk is full", code="keys.full")


def no_identity(_: str) -> HostIdentity:
    raise ZeroDivisionError


async def started(recordings: OwnRecordings, cause: str = "") -> OwnRecording:
    async with asyncio.timeout(PATIENCE_S):
        return await recordings.start("demo-01", SETTINGS, NOTHING, 5, cause=cause)


@pytest.mark.parametrize(
    ("identities", "opened", "code"),
    [(full_disk, breaking, "keys.full"), (no_identity, breaking, BUG), (full_disk, unopened, BUG)],
    ids=["disk", "identity", "capture"],
)
async def test_a_recording_that_cannot_start_says_so_and_leaves_its_name_free(
    identities: Identities, opened: OpenSource, code: str
) -> None:
    """Breaks: a recording that never ran is told as `starting` for ever, and nobody can use its name."""
    recordings = OwnRecordings(NOBODY, identities, "host-1", opened)
    for cause in ("", "key-1", "key-1"):
        with pytest.raises(LucidError) as told:
            await started(recordings, cause)
        assert (told.value.code, recordings.all()) == (code, [])


async def test_a_failed_start_is_forgotten_although_nobody_waits_for_it() -> None:
    """Breaks: a client that hangs up during a start that fails blocks the name for good."""
    reached, opening = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def slow(_: float, __: Picture) -> AsyncIterator[Source]:
        reached.set()
        await opening.wait()
        yield Breaking()

    recordings = OwnRecordings(NOBODY, full_disk, "host-1", slow)
    waiting = asyncio.create_task(started(recordings))
    await reached.wait()
    waiting.cancel()
    opening.set()
    await recordings.close()
    assert recordings.all() == []


async def test_a_bug_in_a_recording_is_told_as_its_failure(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: a recording that has stopped is told as running, and nobody begins another one."""
    async with system(server, tmp_path, worker=False) as world:
        recordings = OwnRecordings(world.jet, world.here.identity, "host-1", breaking)
        begun = await started(recordings, "key-1")
        await recordings.close()
        assert (begun.state, begun.error and begun.error.code) == ("failed", BUG)
        assert await started(recordings, "key-1") is begun, "a repeated request is told the failure"


NOBODY: Jet = None  # type: ignore[assignment]  # nobody is asked before the host knows its identity
