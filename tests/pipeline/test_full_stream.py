"""A recording stream that fills up: data stops, markers go, every session can end. A real server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.errors import NoSpace
from schemas.format.fragment import Kind, parse
from streams.event_store.recordings import Recordings
from streams.host import publisher, send_quota
from streams.host.publisher import Progress, Publisher
from streams.host.send_quota import SendQuota
from streams.host.session_start import start_session
from streams.host.source_feed import publish
from streams.retention import sealed_source
from tests.support.machine.waiting import PATIENCE_S, until
from tests.support.pipeline.both_verifiers import verified
from tests.support.pipeline.conducted import SETTINGS, World, system
from tests.support.pipeline.prepared import one_shard
from tests.support.pipeline.purging import fullest, limit_recordings

LIMIT = 8 << 20
MORE = 3 * LIMIT
BLOCK = 60_000
ONE, TWO = one_shard("one", "two")
"""They share a stream, however many there are."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "QUOTA_RETRY_S", 0.1)
    monkeypatch.setattr(publisher, "TICK_S", 0.2)
    monkeypatch.setattr(sealed_source, "SWEEP_S", 0.2)
    monkeypatch.setattr(send_quota, "ANSWER_S", PATIENCE_S)  # whoever is not answered sends what has no room


@pytest.fixture
def nothing_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """No prefix of a live session can go, as when its chunks are not stored."""
    monkeypatch.setattr(sealed_source, "may_release", lambda _: False)


class Sender:
    """One session that sends more than the stream takes."""

    def __init__(self, told: Progress) -> None:
        self.told = told

    @classmethod
    async def of(cls, world: World, session: str) -> "Sender":
        self = cls(Progress())
        grant = await start_session(world.jet, world.here.identity, session, session, SETTINGS)
        self.publisher = Publisher(world.jet, grant, self.show, quota=SendQuota.of(world.jet, grant.session))
        self.task = asyncio.create_task(publish(self._source(), self.publisher, "opaque"))
        return self

    def show(self, progress: Progress) -> None:
        self.told = progress

    async def waits(self) -> None:
        """Return when it waits with no data under way: what it sends now are ticks."""
        ours = self.publisher
        await until(lambda: "waits for room" in ours.progress.trouble and ours._outbox.sending < BLOCK)

    async def _source(self) -> AsyncIterator[bytes]:
        for number in range(MORE // BLOCK):
            yield bytes([number % 251]) * BLOCK


async def kinds(world: World, session: str) -> list[Kind]:
    found = (await Recordings.open(world.jet)).read_all(subjects.recording(session, session))
    return [parse(message.data).header.kind async for message in found]


async def test_recordings_that_are_larger_than_the_stream_pass_through_it_whole(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: a long session waits for ever at 95 %, because it fills the stream itself."""
    async with system(server, tmp_path) as world:
        await limit_recordings(world, LIMIT)
        senders = {name: await Sender.of(world, name) for name in (ONE, TWO)}
        for sender in senders.values():
            await sender.task
            await sender.publisher.finish()
        for name in senders:
            await world.until(name, "STOPPED")
            assert (await world.ask("show", name))["released"] > 0
            manifest = await verified(world, name, tmp_path)
            assert manifest.gaps == ()
            assert sum(chunk.entry.plain for chunk in manifest.chunks) == MORE // BLOCK * BLOCK


@pytest.mark.usefixtures("nothing_goes")
async def test_data_stops_at_95_percent_and_goes_on_where_there_is_room(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: a full disk ends recordings, or loses what they record."""
    async with system(server, tmp_path) as world:
        await limit_recordings(world, LIMIT)
        one, two = await Sender.of(world, ONE), await Sender.of(world, TWO)
        await one.waits()
        await two.waits()
        async with asyncio.timeout(PATIENCE_S):
            while (await kinds(world, ONE))[-2:] != [Kind.TICK, Kind.TICK]:  # noqa: ASYNC110 - data under way
                await asyncio.sleep(0.1)
        filled = (await fullest(world)).bytes / LIMIT
        assert 0.93 < filled < 0.985
        await limit_recordings(world, 10 * LIMIT)
        for sender in (one, two):
            await sender.task
            done = await sender.publisher.finish()
            assert (done.plain, done.trouble) == (MORE // BLOCK * BLOCK, "")
        for name in (ONE, TWO):
            await world.until(name, "STOPPED")
        assert (await verified(world, ONE, tmp_path)).gaps == ()


@pytest.mark.usefixtures("nothing_goes")
async def test_a_full_stream_takes_the_end_of_a_recording_and_then_lets_its_source_go(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: what is full stays full, since nothing in it can be sealed."""
    looked_at, next_to_purge = asyncio.Event(), sealed_source.next_to_purge
    monkeypatch.setattr(
        sealed_source, "next_to_purge", lambda *given: next_to_purge(*given) if looked_at.is_set() else None
    )
    async with system(server, tmp_path) as world:
        await limit_recordings(world, LIMIT)
        one = await Sender.of(world, ONE)
        await one.waits()
        two = await Sender.of(world, TWO)
        await two.waits()
        assert (await world.ask("show", TWO))["state"] == "ACTIVE"
        one.publisher.stop_waiting()
        await one.task
        with pytest.raises(NoSpace, match=r"record\.cut"):
            await one.publisher.finish()
        await world.until(ONE, "STOPPED")
        assert (await kinds(world, ONE))[-2:] == [Kind.GAP, Kind.FINAL]
        await verified(world, ONE, tmp_path)
        looked_at.set()
        # Its source goes by itself: 95 % is more than 70 %, and two goes on.
        async with asyncio.timeout(PATIENCE_S):
            while await kinds(world, ONE) != []:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        before = two.told.acknowledged
        await until(lambda: two.told.acknowledged > before)
        await limit_recordings(world, 10 * LIMIT)
        await two.task
        await two.publisher.finish()
        await world.until(TWO, "STOPPED")
        await verified(world, TWO, tmp_path)
