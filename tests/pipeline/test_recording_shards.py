"""A system whose recordings are in several streams; and one of before, whose recordings are in one."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from handlers.evidence.replay import Judgement
from infra.disk.data_dir import DataDir
from infra.jetstream import connect
from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.config.settings import Settings
from schemas.errors import Misuse
from streams.control.client import call
from streams.event_store import topology
from streams.event_store.recordings import Recordings
from streams.host import publisher, send_quota
from streams.retention import sealed_source
from streams.roles.services import run_conductor, run_worker
from tests.contract.test_shards import BEFORE
from tests.pipeline.test_full_stream import BLOCK, LIMIT, MORE, Sender
from tests.support.machine.waiting import PATIENCE_S
from tests.support.pipeline.both_verifiers import verified
from tests.support.pipeline.conducted import World, running, system
from tests.support.pipeline.purging import held, looking, replayed

each_count = pytest.mark.parametrize("shards", [1, 4, 16], indirect=True)


def elsewhere(session: str, shards: int) -> str:
    """A session of another shard."""
    own = subjects.recording_stream(subjects.partition(session), shards)
    names = (f"{session}-{n}" for n in range(100))
    return next(n for n in names if subjects.recording_stream(subjects.partition(n), shards) != own)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "QUOTA_RETRY_S", 0.1)
    monkeypatch.setattr(publisher, "TICK_S", 0.2)
    monkeypatch.setattr(send_quota, "ANSWER_S", PATIENCE_S)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("shards", [4, 16], indirect=True)
async def test_a_full_shard_stops_no_session_of_another(
    server: NatsServer, tmp_path: Path, shards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: one session that nobody can store fills the space of all others."""
    monkeypatch.setattr(sealed_source, "may_release", lambda _: False)
    async with system(server, tmp_path) as world:
        full = (await Recordings.open(world.jet)).stream_of("one")
        for spec in topology.streams(1 << 30, shards=shards)[:shards]:
            if spec.name == full:
                await world.jet.declare(replace(spec, max_bytes=LIMIT))
        one = await Sender.of(world, "one")
        await one.waits()
        two = await Sender.of(world, elsewhere("one", shards))
        await two.task
        await two.publisher.finish()
        await world.until(two.publisher.grant.session, "STOPPED")
        manifest = await verified(world, two.publisher.grant.session, tmp_path)
        assert sum(chunk.entry.plain for chunk in manifest.chunks) == MORE // BLOCK * BLOCK
        assert "waits for room" in one.told.trouble
        one.publisher.stop_waiting()
        await asyncio.gather(one.task, return_exceptions=True)


@pytest.mark.parametrize("shards", [4], indirect=True)
async def test_room_is_that_of_the_sessions_shard_and_without_a_session_the_least(
    server: NatsServer, tmp_path: Path, shards: int
) -> None:
    """Breaks: a host waits because other shards are full, or fills its own; an older host is not answered."""
    async with system(server, tmp_path, worker=False) as world:
        host = await world.start("one")
        await host.record(20)
        recordings = await Recordings.open(world.jet)
        own = await recordings.info(recordings.stream_of("one"))
        asked = {"session": "one", "sending": 7}
        room = await call(world.jet, "room", asked)
        assert (room["used"], room["limit"]) == (own.bytes, own.max_bytes)
        other = await call(world.jet, "room", {"session": elsewhere("one", shards)})
        assert (other["used"], other["limit"]) == (0, own.max_bytes)
        assert await call(world.jet, "room", {"sending": 7}) == room
        with pytest.raises(Misuse):
            await call(world.jet, "room", {"session": "no such $"})


async def test_an_installation_of_before_goes_on_as_one_shard(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: an update makes recordings that are under way, sealed or kept unreadable."""
    jet = await connect(server.url, name="test", timeout_s=PATIENCE_S)
    for stream, config in BEFORE.items():
        await jet.request(f"$JS.API.STREAM.CREATE.{stream}", json.dumps(config).encode())
    world = World(jet, DataDir(tmp_path / "data"), Settings(scrub_mb_per_s=0))
    async with running(run_conductor, world), running(run_worker, world):
        await world.answered()
        sealed, live = [await world.start(name) for name in ("sealed-01", "live-02")]
        await sealed.record(8)
        await sealed.final()
        await live.record(14)
        await world.until("sealed-01", "STOPPED")
    await live.record(14)
    assert await topology.declare(jet, 4 << 30) == {
        subjects.AUDIT: ["created"],
        subjects.REQUESTS: ["created"],
    }
    async with running(run_conductor, world), running(run_worker, world):
        await world.answered()
        late = await world.start("late-03")
        for host in (live, late):
            await host.record(8)
            await host.final()
            await world.until(host.grant.session, "STOPPED")
        for host in (sealed, live, late):
            name = host.grant.session
            assert (await verified(world, name, tmp_path)).totals.fragments == len(host.sent)
            assert set(await replayed(world, name)) == {Judgement.SAME}
        await world.ask("destroy", "late-03", reason="over")
        async with looking(world) as (source, _):
            assert await source.purge_due() == ["sealed-01", "live-02"]
        assert await held(world) == set()
    assert (await Recordings.open(jet)).shards == 1
    await jet.close()


@pytest.mark.parametrize("shards", [4], indirect=True)
async def test_two_shards_have_the_same_sequences_and_no_dead_letter_is_taken_for_another(
    server: NatsServer, tmp_path: Path, shards: int
) -> None:
    """Breaks: a refused fragment is shown nowhere, because another session had the same number."""
    async with system(server, tmp_path) as world:
        names = ["one", elsewhere("one", shards)]
        for name in names:
            await world.start(name)
            ack = await world.jet.publish(subjects.recording("host-1", name), b"garbage")
            assert ack.seq == 1
        for name in names:
            async with asyncio.timeout(PATIENCE_S):
                while not (await world.ask("show", name))["dead"]:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
