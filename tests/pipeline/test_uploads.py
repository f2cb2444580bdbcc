"""Bytes that come over HTTP: sealed by the platform's own upload host, one chain a session."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random

import pytest

from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.errors import RefusedByState
from schemas.subjects import UPLOAD_HOST
from streams.event_store.recordings import Recordings
from streams.event_store.session_log import SessionLog
from streams.evidence.stored_chunks import ChunkLists
from streams.host.upload import Uploads
from streams.keys.keystore import KeyStore
from tests.support.pipeline.conducted import World, system

BLOCK = 60_000


async def body(data: bytes, piece: int = 7_001) -> AsyncIterator[bytes]:
    """The pieces in which a server hands a request's body on."""
    for at in range(0, len(data), piece):
        yield data[at : at + piece]


@asynccontextmanager
async def uploading(
    server: NatsServer, path: Path, session: str = "u"
) -> AsyncIterator[tuple[World, Uploads]]:
    """A system with one started session of the upload host."""
    async with system(server, path) as world:
        await world.start("u", UPLOAD_HOST)
        yield world, await uploads(world)


async def uploads(world: World) -> Uploads:
    """What a process that serves uploads holds; each call is another process."""
    return Uploads(world.jet, await Recordings.open(world.jet), world.here.identity)


async def recorded(world: World, session: str) -> bytes:
    """The plain bytes of a sealed session."""
    found = await SessionLog(world.jet).existing(session)
    stored = await ChunkLists(world.jet, world.here.evidence).of(found)
    async with KeyStore(world.here.key_files, world.here.keyring).using(found.uid) as held:
        assert held is not None
        return b"".join([await stored.plain(chunk, held.keys) for chunk in stored.of_track()])


async def test_uploaded_bytes_are_the_recorded_bytes(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: a host that speaks HTTP only gets back other bytes than it sent."""
    data = Random(1).randbytes(1_500_000)
    async with uploading(server, tmp_path) as (world, first):
        assert await first.send("u", body(data[:700_000])) == 700_000
        assert await first.send("u", body(data[650_000:900_000]), 650_000) == 900_000  # sent again in part
        second = await uploads(world)  # the process was started again
        assert await second.offset("u") == 900_000
        assert await second.send("u", body(data[900_000:]), 900_000) == len(data)
        with pytest.raises(RefusedByState, match="begins at") as refused:
            await second.send("u", body(b"x"), len(data) + 1)
        assert refused.value.code == "upload.offset"
        await second.finish("u")
        await second.finish("u")
        shown = await world.until("u", "STOPPED")
        assert (shown["host"], shown["missing"], shown["equivocations"], shown["plain"]) == (
            UPLOAD_HOST,
            0,
            0,
            len(data),
        )
        assert await recorded(world, "u") == data
        with pytest.raises(RefusedByState) as refused:
            await first.send("u", body(b"x"))
        assert refused.value.code == "upload.state"


async def test_uploads_of_two_processes_at_once_never_fork_a_recording(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: a request that was answered is missing in the recording: another was sealed beside it."""
    async with uploading(server, tmp_path) as (world, first):
        both = first, await uploads(world)
        blocks = [bytes([number]) * BLOCK for number in range(32)]
        kept: list[bytes] = []

        async def send(number: int) -> None:
            while True:
                with suppress(RefusedByState):  # the other one was first
                    await both[number % 2].send("u", body(blocks[number]))
                    kept.append(blocks[number])
                    return

        await asyncio.gather(*map(send, range(32)))
        await first.finish("u")
        shown = await world.until("u", "STOPPED")
        assert (shown["missing"], shown["equivocations"]) == (0, 0)
        data = await recorded(world, "u")
        assert sorted(data[at : at + BLOCK] for at in range(0, len(data), BLOCK)) == sorted(kept) == blocks


async def test_a_strangers_message_in_an_upload_counts_for_nothing(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: whoever reaches NATS stops an upload with one message."""
    async with uploading(server, tmp_path) as (world, first):
        await first.send("u", body(b"a" * BLOCK))
        await world.jet.publish(subjects.recording(UPLOAD_HOST, "u"), b"not a fragment")
        await first.send("u", body(b"b" * BLOCK))
        await world.jet.publish(subjects.recording(UPLOAD_HOST, "u"), b"nor this")
        second = await uploads(world)
        await second.send("u", body(b"c" * BLOCK))
        await second.finish("u")
        await world.until("u", "STOPPED")
        assert await recorded(world, "u") == b"a" * BLOCK + b"b" * BLOCK + b"c" * BLOCK
