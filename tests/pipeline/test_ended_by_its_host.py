"""Whatever breaks a recording off, whoever began its session ends it. A real server and a real pipeline."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from infra.nats_server import server as nats_server
from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.errors import Misuse, Rejected
from schemas.format.fragment import GapBody, Kind, parse
from schemas.ports import Jet
from streams.cli.board import View
from streams.event_store.recordings import Recordings
from streams.host.fragment_message import fragment_bytes
from streams.host.record_session import Sent, record_session
from streams.host.session_start import start_session
from tests.support.pipeline.both_verifiers import verified
from tests.support.pipeline.conducted import SETTINGS, World, system

BLOCKS = [bytes([number]) * 100_000 for number in range(8)]


class Given:
    """A source that gives blocks, and then raises what it is told to."""

    def __init__(self, error: BaseException | None = None) -> None:
        self._error = error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for block in BLOCKS:
            yield block
        if self._error is not None:
            raise self._error

    def stop(self) -> None: ...


class Refusing:
    """The connection, but the server refuses the third message of a recording for good."""

    def __init__(self, jet: Jet) -> None:
        self._jet = jet
        self._sent = 0

    async def publish(self, subject: str, *args: Any, **more: Any) -> object:
        self._sent += 1
        if self._sent > 2:
            raise Rejected(f"{subject}: 900 bytes, and the server takes 800", code="nats.too_large")
        return await self._jet.publish(subject, *args, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._jet, name)


async def recorded(world: World, source: Given, jet: Any = None) -> Sent:
    """`lucid record` of a source, as the session demo-01."""
    grant = await start_session(world.jet, world.here.identity, "host-1", "demo-01", SETTINGS)
    view = View(world.jet, "demo-01")
    return await record_session(jet or world.jet, grant, source, "opaque", view, asyncio.Event())


async def test_an_error_that_nobody_foresaw_leaves_no_session_open(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: a bug of the recorder leaves a session that is ACTIVE, then ERROR, for days."""
    async with system(server, tmp_path) as world:
        with pytest.raises(ZeroDivisionError):
            await recorded(world, Given(ZeroDivisionError()))
        await world.until("demo-01", "STOPPED")
        manifest = await verified(world, "demo-01", tmp_path)
        assert manifest.end == "final"
        assert sum(chunk.plain for chunk in manifest.chunks) == sum(map(len, BLOCKS))
        subject = subjects.recording("host-1", "demo-01")
        sent = [parse(message.data) async for message in (await Recordings.open(world.jet)).read_all(subject)]
        (gap,) = (fragment for fragment in sent if fragment.header.kind is Kind.GAP)
        assert GapBody.parse(gap.clear).reason == "recorder.failed"


async def test_what_the_server_refuses_for_good_is_ended_by_the_platform(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: a recording that cannot send even its final stays open for days."""
    async with system(server, tmp_path) as world:
        with pytest.raises(Rejected, match=r"nats\.too_large"):
            await recorded(world, Given(), Refusing(world.jet))
        await world.until("demo-01", "STOPPED")
        manifest = await verified(world, "demo-01", tmp_path)
        assert (manifest.end, manifest.reason) == ("aborted", "nats.too_large")
        assert 0 < sum(chunk.plain for chunk in manifest.chunks) < sum(map(len, BLOCKS))


async def test_a_server_that_takes_small_messages_is_given_small_fragments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a server whose max_payload somebody has lowered ends each recording in its middle."""
    monkeypatch.setattr(nats_server, "MAX_PAYLOAD", 50_000)
    server = NatsServer(tmp_path / "nats", max_file=4 << 30)
    await server.start()
    try:
        async with system(server, tmp_path) as world:
            assert world.jet.max_payload == 50_000
            sent = await recorded(world, Given())
            assert sent.broken is None
            await world.until("demo-01", "STOPPED")
            manifest = await verified(world, "demo-01", tmp_path)
            assert sum(chunk.plain for chunk in manifest.chunks) == sum(map(len, BLOCKS))
            assert manifest.totals.fragments > sum(map(len, BLOCKS)) / 50_000
    finally:
        await server.stop()
    with pytest.raises(Misuse, match=r"nats\.max_payload"):
        fragment_bytes(1 << 20, 4096)
