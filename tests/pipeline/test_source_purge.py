"""The source of a sealed session, from its seal to its end: a real server, conductor and worker."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from handlers.evidence.replay import Judgement
from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.config.settings import Settings
from schemas.errors import RefusedByState, Unavailable, outcome
from streams.event_store import recordings
from streams.event_store.recordings import Recordings
from streams.retention import sealed_source
from streams.roles.services import run_conductor, run_worker
from tests.support.machine.waiting import PATIENCE_S
from tests.support.pipeline.both_verifiers import verified
from tests.support.pipeline.conducted import World, connected, running, system
from tests.support.pipeline.prepared import one_shard
from tests.support.pipeline.purging import fullest, held, limit_recordings, looking, replayed, seal

DAY_S = 86_400.0


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The conductor looks once, at its start; then who looks is the test."""
    monkeypatch.setattr(sealed_source, "SWEEP_S", 10 * PATIENCE_S)


async def emptied(world: World) -> None:
    """Return when RECORDINGS holds nothing."""
    async with asyncio.timeout(PATIENCE_S):
        while await held(world):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def events(world: World, name: str) -> list[str]:
    """Steps of which CHUNKS holds an event, and how many."""
    found = await world.jet.subject_counts(subjects.CHUNKS, subjects.chunk("*", name))
    return sorted(f"{subjects.step_of(subject)} {count}" for subject, count in found.items())


async def test_a_sealed_source_goes_by_itself_and_the_evidence_stays_true(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: recordings are kept twice for ever; or what is left of one cannot be verified or shown."""
    monkeypatch.setattr(sealed_source, "SWEEP_S", 0.1)
    async with connected(server, tmp_path) as world:
        world.settings = Settings(source_retention_s=0)
        async with running(run_conductor, world), running(run_worker, world):
            await world.answered()
            host = (await seal(world, "demo-01"))["demo-01"]
            await emptied(world)
            assert await events(world, "demo-01") == ["recorded 1"], "the checkpoint"
            manifest = await verified(world, "demo-01", tmp_path)
            assert manifest.totals.fragments == len(host.sent)
            shown = await world.ask("show", "demo-01")
            told = [shown[what] for what in ("recorded", "stored", "fragments", "plain")]
            totals = manifest.totals
            assert told == [totals.chunks, totals.chunks, totals.fragments, 8 * 50_000]
            with pytest.raises(
                RefusedByState, match=r"the source of demo-01 is gone.*chunk\.source_gone"
            ) as why:
                await replayed(world, "demo-01")
            assert outcome(why.value).exit_code == 5
            await seal(world, "demo-02")  # the host goes on as before


async def test_nothing_goes_before_its_time_and_a_hold_keeps_no_source(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: a replay is refused an hour after the seal; or what is under hold fills the stream."""
    async with system(server, tmp_path) as world:
        await seal(world, "held-01")
        await world.ask("hold", "held-01", held=True)
        running_on = await world.start("live-01")
        await running_on.record(8)
        sealed_us = (await world.ask("show", "held-01"))["seal"]["sealed_us"]
        async with looking(world, DAY_S) as (source, clock):
            clock.us = sealed_us + int(DAY_S * 1e6) - 1
            assert await source.purge_due() == []
            assert set(await replayed(world, "held-01")) == {Judgement.SAME}
            clock.us += 1
            assert await source.purge_due() == ["held-01"]
            assert await source.purge_due() == []
        assert await held(world) == {"live-01"}
        await verified(world, "held-01", tmp_path)
        await running_on.final()
        await world.until("live-01", "STOPPED")
        await verified(world, "live-01", tmp_path)


class CountingNames:
    """A connection that notes which names it asked for."""

    def __init__(self, jet: Any) -> None:
        self._jet, self.asked = jet, list[str]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._jet, name)

    async def subject_counts(self, stream: str, subject: str) -> Any:
        self.asked.append(subject)
        return await self._jet.subject_counts(stream, subject)


async def test_of_very_many_recordings_only_those_that_are_due_are_asked_for(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: with ten thousand recordings in the stream every look asks the server for each of them."""
    monkeypatch.setattr(recordings, "MOST_NAMES", 1)
    async with system(server, tmp_path) as world:
        names = one_shard("a-01", "b-02", "c-03")
        await seal(world, *names)
        jet = CountingNames(world.jet)
        async with looking(world, DAY_S, jet) as (source, clock):
            clock.us = 1
            assert await source.purge_due() == []
            assert jet.asked == []
            clock.us = 2**51
            assert await source.purge_due() == names
            assert len(jet.asked) == 3
        await (await world.start("live-04")).record(8)
        await (await world.start("live-05")).record(8)
        async with looking(world, DAY_S, jet) as (source, _):
            assert len(source.directory.sealed) == 3, "their sources are gone, and it does not know yet"
            assert await source.purge_due() == []
            assert not source.directory.sealed


async def test_above_70_percent_the_oldest_seals_go_and_no_more_than_needed(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: a full stream refuses new recordings while it holds what is sealed long ago."""
    async with system(server, tmp_path) as world:
        first, second, third, live = one_shard("a-01", "c-02", "b-03", "live-04")
        await seal(world, first, second, third)
        await (await world.start(live)).record(8)
        each = (await fullest(world)).bytes // 4
        async with looking(world, 100 * 365 * DAY_S) as (source, _):
            assert await source.purge_due() == []
            await limit_recordings(world, int(each * 4 / 0.69))
            assert await source.purge_due() == []
            await limit_recordings(world, int(each * 4.05 / 0.70 * 3 / 4))
            assert await source.purge_due() == [first]
            await limit_recordings(world, each * 4)
            assert await source.purge_due() == [second], "two of four are left: 50 %"
            await limit_recordings(world, int(each * 2.1))
            assert await source.purge_due() == [third]
            assert await source.purge_due() == []
        assert await held(world) == {live}


@pytest.mark.parametrize("damage", ["missing", "false", "index", "manifest"])
async def test_a_chunk_that_is_not_whole_keeps_the_source_that_mends_it(
    server: NatsServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    """Breaks: the last good copy of a recording is thrown away."""
    async with system(server, tmp_path) as world:
        host = (await seal(world, "demo-01", "fine-02"))["demo-01"]
        folder = world.data.manifests if damage == "manifest" else world.data.chunks
        files = sorted((folder / host.grant.uid.hex()).iterdir())
        struck = files[-1] if damage == "index" else files[0]
        whole = struck.read_bytes()
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 1
        struck.unlink()
        if damage != "missing":
            struck.write_bytes(flipped)
        async with looking(world) as (source, clock):
            with caplog.at_level(logging.ERROR, "lucid.retention"):
                assert await source.purge_due() == ["fine-02"], "another session's damage holds nobody up"
                clock.us += 3599 * 1_000_000
                assert await source.purge_due() == []
            (said,) = caplog.messages
            assert said.startswith("source_kept session=demo-01 ")
            assert await held(world) == {"demo-01"}
            if damage == "manifest":
                struck.write_bytes(whole)
            else:
                assert Judgement.RESTORED in await replayed(world, "demo-01")
            assert struck.read_bytes() == whole
            clock.us += 1_000_000
            assert await source.purge_due() == ["demo-01"]
        await verified(world, "demo-01", tmp_path)


class Struck:
    """A connection whose purges fail from the given one on: before they are done, or after."""

    def __init__(self, jet: Any, at: int, *, applied: bool) -> None:
        self._jet, self._left, self._applied = jet, at, applied

    def __getattr__(self, name: str) -> Any:
        return getattr(self._jet, name)

    async def purge(self, *args: Any) -> int:
        self._left -= 1
        if self._left < 0 and not self._applied:
            raise Unavailable("failed", code="test.failed")
        done = int(await self._jet.purge(*args))
        if self._left < 0:
            raise Unavailable("failed, but was applied", code="test.applied")
        return done


async def test_a_crash_at_every_purge_leaves_what_the_next_look_finishes(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: the power fails while a source goes, and half of it stays for ever, or is recorded again."""
    purges = len(sealed_source.STEPS) + 2
    names = [f"s{n}-{applied}" for n in range(purges) for applied in (False, True)]
    async with system(server, tmp_path) as world:
        for name in names:
            host = await world.start(name)
            await host.record(6)
            await host.final()
        for name in names:
            await world.until(name, "STOPPED")
        for name in names:
            at, applied = int(name[1]), name.endswith("True")
            jet = Struck(world.jet, at, applied=applied)
            async with looking(world, jet=jet) as (source, _):
                source.directory._sealed = {name: source.directory.sealed[name]}
                for shard in source._shards:
                    shard.names_to_skip = {*names} - {name}
                with pytest.raises(Unavailable, match=r"test\."):
                    await source.purge_due()
            gone = at == purges - 1 and applied
            assert (name in await held(world)) is not gone
        async with running(run_worker, world), looking(world) as (source, _):  # a worker that knows nothing
            assert set(await source.purge_due()) == set(names) - {f"s{purges - 1}-True"}
            assert await held(world) == set()
            await asyncio.sleep(0.5)
            for name in names:
                assert await events(world, name) == ["recorded 1"]
                assert (await world.ask("show", name))["state"] == "STOPPED"


class Away:
    """A connection on which one stream does not answer."""

    def __init__(self, jet: Any, stream: str) -> None:
        self._jet, self._stream = jet, stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._jet, name)

    async def info(self, stream: str) -> Any:
        if stream == self._stream:
            raise Unavailable(f"{stream} has no leader", code="test.away")
        return await self._jet.info(stream)


async def test_a_shard_that_is_not_readable_keeps_the_space_of_no_other(
    server: NatsServer, tmp_path: Path, shards: int
) -> None:
    """Breaks: one stream without a leader, and all the others fill up and refuse data."""
    if shards < 4:
        pytest.skip("there are too few shards")
    async with system(server, tmp_path) as world:
        opened = await Recordings.open(world.jet)
        by_stream = {opened.stream_of(name): name for name in map("demo-{}".format, range(20))}
        away, *others = sorted(by_stream, key=opened.streams.index)[1:4]
        await seal(world, *(by_stream[stream] for stream in (away, *others)))
        async with looking(world, jet=Away(world.jet, away)) as (source, _):
            with pytest.raises(Unavailable, match="no leader"):
                await source.purge_due()
        assert await held(world) == {by_stream[away]}
        async with looking(world) as (source, _):
            assert await source.purge_due() == [by_stream[away]]


async def test_what_comes_after_the_purge_goes_too_and_is_no_new_recording(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: a late spool fills the stream, or opens a sealed session again."""
    async with system(server, tmp_path) as world:
        host = (await seal(world, "demo-01"))["demo-01"]
        async with looking(world) as (source, _):
            assert await source.purge_due() == ["demo-01"]
            for fragment in host.sent:
                await world.jet.publish(subjects.recording("host-1", "demo-01"), fragment)
            await world.jet.publish(subjects.recording("host-2", "demo-01"), b"another host's")
            await asyncio.sleep(0.5)
            assert await events(world, "demo-01") == ["recorded 1"]
            assert await source.purge_due() == ["demo-01"]
        assert await held(world) == set()
        await verified(world, "demo-01", tmp_path)


async def test_a_host_that_goes_on_sending_holds_up_no_destruction_and_leaves_nothing(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: one byte a second keeps a session from being destroyed, or fills the stream after it."""
    async with system(server, tmp_path) as world:
        host = await world.start("demo-01")
        kept = await world.start("demo-02")
        await host.record(4)
        await kept.record(2)
        subject = subjects.recording("host-1", "demo-01")

        async def send_on() -> None:
            while True:
                await world.jet.publish(subject, host.sent[-1])
                await world.jet.publish(subjects.recording("host-2", "demo-01"), b"another host's")

        sending = asyncio.create_task(send_on())
        told = await world.ask("destroy", "demo-01", reason="over")
        assert (told["state"], told["shredded"]) == ("DESTROYED", True)
        await asyncio.sleep(0.2)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await world.jet.publish(subject, host.sent[-1])
        never = subjects.recording("host-1", "never-created")
        await world.jet.publish(never, b"nobody's")
        async with looking(world) as (source, clock):
            await source.purge_due()
            assert await held(world) == {"demo-02", "never-created"}, "or what is not destroyed went"
            await world.jet.publish(subject, host.sent[-1])
            clock.us += 10**9
            await source.purge_due()
        assert await held(world) == {"demo-02", "never-created"}
