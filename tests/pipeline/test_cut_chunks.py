"""What `record` and the stages do after the server has cut the stream CHUNKS behind a damaged length."""

import asyncio
import logging
from pathlib import Path

import pytest

from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.errors import Unavailable
from schemas.events.chunk import Ended
from streams.event_store.chunk_log import recorded_events
from tests.support.machine.waiting import PATIENCE_S, until
from tests.support.pipeline.conducted import World, connected, system
from tests.support.pipeline.scrubbed import flip_in_stream, sealed

LIVE, SEALED = "demo-02", "demo-01"
CHUNK = 6
"""Fragments that close a chunk, and begin the next one."""


async def recorded(world: World, session: str) -> list[int]:
    """The indexes of the session's `recorded` events, in the stream's order."""
    events = [event async for event in recorded_events(world.jet, session)]
    return [event.index for event in events if not isinstance(event, Ended)]


async def held(world: World, step: str, session: str) -> int:
    subject = subjects.chunk(step, session)
    return len([message async for message in world.jet.read_all(subjects.CHUNKS, subject)])


def files(world: World) -> dict[Path, bytes]:
    """Every stored chunk."""
    return {path: path.read_bytes() for path in world.data.chunks.rglob("*") if path.is_file()}


async def restart_cut(nats: NatsServer) -> None:
    """Flip a bit of a length in the middle of CHUNKS: the server drops all from there on."""
    await nats.stop()
    flip_in_stream(nats.data, subjects.CHUNKS, length=True)
    await nats.start()


async def test_a_session_whose_last_events_were_cut_off_goes_on_and_no_byte_changes(tmp_path: Path) -> None:
    """Breaks: a live recording never ends, or a sealed one changes, since a disk has flipped one bit."""
    nats = NatsServer(tmp_path / "nats")
    await nats.start()
    try:
        async with system(nats, tmp_path) as world:
            host = await world.start(LIVE)
            for chunks in range(1, 6):
                await host.record(CHUNK)
                await world.stored(LIVE, chunks)
            await sealed(world, SEALED, CHUNK)
            before = files(world)
        await restart_cut(nats)
        async with connected(nats, tmp_path) as world:
            # The fourth chunk has lost its later results, the fifth one every event.
            assert await recorded(world, LIVE) == [0, 1, 2, 3]
            assert await held(world, subjects.CHUNKED, LIVE) == 4
            assert await held(world, subjects.STORED, LIVE) == 3
            assert await recorded(world, SEALED) == []
        async with system(nats, tmp_path) as world:
            host.jet = world.jet
            await world.stored(LIVE, 5)
            await host.record(CHUNK)
            await host.final()
            shown = await world.until(LIVE, "STOPPED")
            assert (shown["sealed"], shown["recorded"]) == (True, 8)
            assert await recorded(world, LIVE) == list(range(8)), "none doubled, none left out"
            now = files(world)
            assert {path: now.get(path) for path in before} == before
            assert (await world.ask("show", SEALED))["sealed"]
            assert await recorded(world, SEALED) == [], "its fragments are not folded again"
    finally:
        await nats.stop()


async def test_a_session_of_which_the_server_denies_all_events_stops_with_one_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Breaks: `record` appends a session's first chunk again and again until the disk is full."""
    nats = NatsServer(tmp_path / "nats")
    await nats.start()
    try:
        async with system(nats, tmp_path) as world:
            await sealed(world, SEALED)
            host = await world.start(LIVE)
            await host.record(4 * CHUNK)
            await world.stored(LIVE, 4)
            before = files(world)
        await restart_cut(nats)
        for start in range(2):
            caplog.clear()
            with caplog.at_level(logging.ERROR, "lucid.record"):
                async with system(nats, tmp_path) as world:
                    await until(lambda: "recording_stopped" in caplog.text)
                    assert await recorded(world, LIVE) == [0], f"start {start}: one event, and no more"
                    with pytest.raises(Unavailable) as raised:
                        await world.ask("show", LIVE)
                    assert raised.value.code == "record.forgotten"
            (said,) = (one for one in caplog.messages if "recording_stopped" in one)
            assert f"session={LIVE}" in said
            assert "remove index.db" in said

        await nats.stop()
        for index in nats.data.rglob(f"streams/{subjects.CHUNKS}/msgs/index.db"):
            index.unlink()
        await nats.start()
        async with system(nats, tmp_path) as world:
            host.jet = world.jet
            await host.final()
            async with asyncio.timeout(PATIENCE_S):
                shown = await world.until(LIVE, "STOPPED")
            assert shown["sealed"]
            assert await recorded(world, LIVE) == [0, 1, 2, 3, 4]
            now = files(world)
            assert {path: now.get(path) for path in before} == before
    finally:
        await nats.stop()
