"""STOP ends an upload in order: the conductor writes its `final`, once, whenever it dies."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.errors import RefusedByState, Unavailable
from schemas.format.fragment import Kind, parse
from schemas.subjects import UPLOAD_HOST
from streams.event_store.recordings import Recordings
from streams.host.upload import Uploads
from streams.roles.services import run_conductor, run_worker
from tests.support.pipeline.both_verifiers import verified
from tests.support.pipeline.conducted import World, connected, running, system

NAME, BYTES = "up-01", 700_000


async def body(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // 7_000):
        yield b"s" * 7_000


async def uploads(world: World) -> Uploads:
    return Uploads(world.jet, await Recordings.open(world.jet), world.here.identity)


async def started(world: World, **more: Any) -> Uploads:
    await world.ask("open", NAME, cause="open-1", settings={"chunk_bytes": 1 << 18}, **more)
    assert (await world.ask("start", NAME))["state"] == "ACTIVE"
    return await uploads(world)


async def kinds(world: World) -> list[Kind]:
    subject = subjects.recording(UPLOAD_HOST, NAME)
    return [parse(m.data).header.kind async for m in (await Recordings.open(world.jet)).read_all(subject)]


async def test_an_upload_that_is_stopped_is_sealed_without_its_sender(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: what came over HTTP is evidence only if its sender comes back to end it."""
    async with system(server, tmp_path) as world:
        sender = await started(world)
        await sender.send(NAME, body(BYTES))
        await world.ask("stop", NAME)
        assert (await world.until(NAME, "STOPPED"))["plain"] == BYTES
        manifest = await verified(world, NAME, tmp_path)
        assert (manifest.end, manifest.host.name, manifest.host.attested) == ("final", UPLOAD_HOST, False)
        with pytest.raises(RefusedByState, match=r"upload\.state"):
            await sender.send(NAME, body(BYTES))


async def test_an_upload_without_a_byte_is_sealed_too(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: a session that nobody sent anything to stays STOPPING for ever."""
    async with system(server, tmp_path) as world:
        await started(world)
        await world.ask("stop", NAME)
        assert (await world.until(NAME, "STOPPED"))["plain"] == 0
        assert (await verified(world, NAME, tmp_path)).end == "final"


@pytest.mark.parametrize("after", [False, True])
async def test_a_conductor_that_dies_between_stop_and_final_writes_it_once(
    server: NatsServer, tmp_path: Path, after: bool
) -> None:
    """Breaks: a crash leaves an upload without its end, or with two of them."""
    real, reached = Uploads.finish, asyncio.Event()

    async def struck(uploads: Uploads, name: str) -> None:
        if after:
            await real(uploads, name)
        reached.set()
        raise Unavailable("struck", code="nats.timeout")

    async with connected(server, tmp_path) as world:
        with patch.object(Uploads, "finish", struck):
            async with running(run_conductor, world):
                await world.answered()
                sender = await started(world)
                await sender.send(NAME, body(BYTES))
                await world.ask("stop", NAME)
                await reached.wait()
        assert (Kind.FINAL in await kinds(world)) is after
        async with running(run_conductor, world), running(run_worker, world):
            await world.answered()
            assert (await world.until(NAME, "STOPPED"))["plain"] == BYTES
            assert (await verified(world, NAME, tmp_path)).end == "final"
            assert (await kinds(world)).count(Kind.FINAL) == 1


async def test_a_late_sender_and_the_final_never_both_succeed(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: bytes are acknowledged behind the end of their recording, and are in no evidence."""
    async with system(server, tmp_path) as world:
        sender = await started(world)
        await sender.send(NAME, body(70_000))
        acknowledged = 70_000

        async def flood() -> None:
            nonlocal acknowledged
            while True:
                acknowledged = await sender.send(NAME, body(70_000))

        sending = asyncio.create_task(flood())
        await asyncio.sleep(0.2)
        await world.ask("stop", NAME)
        shown = await world.until(NAME, "STOPPED")
        with pytest.raises(RefusedByState, match=r"upload\."):
            await sending
        found = await kinds(world)
        assert found.count(Kind.FINAL) == 1
        assert found[-1] is Kind.FINAL
        await verified(world, NAME, tmp_path)
        assert shown["plain"] >= acknowledged


async def test_an_upload_waits_for_its_sender_as_long_as_it_takes(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: a sender that pauses for two minutes finds its session in ERROR."""
    async with system(server, tmp_path) as world:
        sender = await started(world)
        await sender.send(NAME, body(70_000))
        await world.ask("pause", NAME)
        await world.until(NAME, "PAUSED")
        with pytest.raises(RefusedByState, match=r"upload\.state"):
            await sender.send(NAME, body(70_000))
        await world.ask("resume", NAME)
        await sender.send(NAME, body(70_000))
        await world.ask("stop", NAME)
        assert (await world.until(NAME, "STOPPED"))["plain"] == 140_000
