"""The source of a live session's stored chunks, while the recording stream fills: real server and worker."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from handlers.evidence.replay import Judgement
from handlers.format.fragment import FragmentSealer
from handlers.lifecycle.session import Session
from handlers.stages.record.pieces import Identity
from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.errors import Unavailable
from schemas.events.chunk import Redriven
from schemas.format.fragment import EVENTS, TrackTail, parse
from schemas.ports.messages import Message
from streams.event_store.chunk_log import recorded_events
from streams.event_store.chunk_progress import ChunkProgress
from streams.event_store.recordings import Recordings
from streams.event_store.session_log import SessionLog
from streams.pipeline.record.ingest import Ingest
from streams.retention import live_source, sealed_source
from streams.roles.services import run_worker
from tests.support.machine.waiting import PATIENCE_S
from tests.support.pipeline.both_verifiers import verified
from tests.support.pipeline.conducted import PART, Host, World, running, system
from tests.support.pipeline.prepared import one_shard
from tests.support.pipeline.purging import fullest, held, limit_recordings, looking, replayed, seal

FRAGMENTS = 26
"""Of 50,000 bytes; five fill a chunk of 256 KiB."""


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The conductor looks once, at its start; then who looks is the test."""
    monkeypatch.setattr(sealed_source, "SWEEP_S", 10 * PATIENCE_S)


async def live(world: World, name: str = "live-01", fragments: int = FRAGMENTS) -> Host:
    """A session that runs, and whose closed chunks are all stored."""
    host = await world.start(name)
    await host.record(fragments)
    await world.stored(name, (fragments - 1) // 5)
    return host


async def fill(world: World, share: float = 0.8) -> None:
    """Let what the fullest stream holds be this share of its limit."""
    await limit_recordings(world, int((await fullest(world)).bytes / share))


async def events_track(host: Host, numbers: Sequence[int]) -> tuple[list[bytes], TrackTail]:
    """Send some of the second track's three fragments, by number; return all of them, and where it ends."""
    session = await SessionLog(host.jet).load(host.grant.session)
    assert session.created is not None
    sealer = FragmentSealer(
        host.grant.uid,
        EVENTS,
        host.grant.sign_key,
        host.grant.intake_public,
        Identity.of(session.created, session.intake).genesis[EVENTS],
    )
    made = [sealer.part(PART, host.now_us), *(sealer.data(b"event", host.now_us) for _ in range(2))]
    for number in numbers:
        await host.send(made[number])
    return made, sealer.tail()


async def fragments(world: World, host: Host) -> list[int]:
    """Numbers of the fragments that the stream still holds."""
    subject = subjects.recording(host.grant.host, host.grant.session)
    return [parse(m.data).header.seq async for m in (await Recordings.open(world.jet)).read_all(subject)]


async def released(world: World, name: str = "live-01") -> int:
    return int((await world.ask("show", name))["released"])


async def dead(world: World) -> list[bytes]:
    return [m.data async for m in world.jet.read_all(subjects.DEAD, "lucid.dead.>")]


async def test_a_recording_that_alone_fills_the_stream_goes_on_and_is_sealed_whole(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: a long session stops at 95 %; or what is purged is missing when it is continued and sealed."""
    async with system(server, tmp_path, worker=False) as world:
        async with running(run_worker, world):
            host = await live(world)
            await fill(world)
            async with looking(world) as (source, _):
                assert await source.purge_due() == ["live-01"]
                assert await source.purge_due() == []
            assert await released(world) == 5
            assert await fragments(world, host) == [26], "what stands in no closed chunk"
        await host.record(12)
        async with running(run_worker, world):  # it knows nothing but what is in the streams
            await world.stored("live-01", 7)
            await host.final()
            await world.until("live-01", "STOPPED")
        manifest = await verified(world, "live-01", tmp_path)
        assert manifest.totals.fragments == len(host.sent)
        assert manifest.gaps == ()
        made = await replayed(world, "live-01")
        assert made[:5] == [Judgement.RELEASED] * 5
        assert set(made[5:]) == {Judgement.SAME}
        stored = sorted((world.data.chunks / host.grant.uid.hex()).iterdir())
        stored[0].unlink()
        stored[6].unlink()
        made = await replayed(world, "live-01")
        assert (made[0], made[6]) == (Judgement.IRREPARABLE, Judgement.RESTORED)


@pytest.mark.parametrize("sent", [[0, 1], [0, 2]], ids=["its open chunk", "an early fragment"])
async def test_a_track_that_rests_keeps_only_what_it_rests_on(
    server: NatsServer, tmp_path: Path, sent: list[int]
) -> None:
    """Breaks: one event early in a session pins its whole source, and the recording stops at 95 %."""
    async with system(server, tmp_path, worker=False) as world:
        async with running(run_worker, world):
            host = await world.start("live-01")
            await host.record(2)
            made, tail = await events_track(host, sent)
            await host.record(FRAGMENTS - 2)
            await world.stored("live-01", 5)
            await fill(world)
            async with looking(world) as (source, _):
                assert await source.purge_due() == ["live-01"]
            assert sorted(await fragments(world, host)) == [*sent, 26]
        others = [made[number] for number in range(3) if number not in sent]
        async with running(run_worker, world):
            for fragment in others:
                await host.send(fragment)
            await host.send(host.sealer.final([tail], host.now_us))
            await world.until("live-01", "STOPPED")
        manifest = await verified(world, "live-01", tmp_path)
        assert (manifest.totals.fragments, manifest.gaps) == (len(host.sent), ())


async def test_nothing_of_a_live_session_goes_below_70_percent_or_before_a_sealed_source(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: a replay is impossible although there was room, or although older sources could have gone."""
    async with system(server, tmp_path) as world:
        _, old = one_shard("live-01", "old-01")
        await seal(world, old, fragments=60)
        host = await live(world)
        async with looking(world, 1e9) as (source, _):
            await fill(world, 0.69)
            assert await source.purge_due() == []
            await fill(world, 0.71)
            assert await source.purge_due() == [old]
            assert await released(world) == 0
        assert len(await fragments(world, host)) == len(host.sent)


async def test_the_session_that_frees_most_goes_first_and_no_more_than_needed(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: every small recording loses its source for the sake of a large one."""
    monkeypatch.setattr(live_source, "STEP_BYTES", 250_000)
    async with system(server, tmp_path) as world:
        small, large = one_shard("small-01", "large-02")
        await live(world, small, 11)
        await live(world, large, 41)
        async with looking(world) as (source, _):
            await fill(world, 0.75)
            assert await source.purge_due() == [large]
        assert (await released(world, small), await released(world, large)) == (0, 1)


async def test_only_what_stands_before_the_first_chunk_that_is_not_whole_goes(
    server: NatsServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Breaks: the only thing goes from which a damaged chunk could be made again."""
    async with system(server, tmp_path) as world:
        host = await live(world)
        struck = world.data.chunks / host.grant.uid.hex() / f"{2:010}"
        flipped = bytearray(struck.read_bytes())
        flipped[-1] ^= 1
        struck.write_bytes(flipped)
        await fill(world)
        async with looking(world) as (source, _):
            with caplog.at_level(logging.ERROR, "lucid.retention"):
                assert await source.purge_due() == ["live-01"]
                assert await source.purge_due() == []
            (said,) = caplog.messages
            assert said.startswith("source_kept session=live-01 index=2")
            assert await released(world) == 2
            assert min(await fragments(world, host)) == 11, "part fragment and ten of data are gone"
            await host.final()
            await world.until("live-01", "STOPPED")
            assert (await replayed(world, "live-01"))[2] is Judgement.RESTORED
        await verified(world, "live-01", tmp_path)


async def test_a_file_that_cannot_be_read_keeps_only_its_own_session(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: one bad place on the disk, and every recording stops when the stream is full."""
    async with system(server, tmp_path) as world:
        large, small = one_shard("large-01", "small-02")
        host = await live(world, large, 41)
        await live(world, small, 26)
        struck = world.data.chunks / host.grant.uid.hex() / f"{0:010}"
        struck.unlink()
        struck.mkdir()
        await fill(world, 0.9)
        async with looking(world) as (source, _):
            assert await source.purge_due() == [small]
        assert await released(world, large) == 0


async def test_a_claim_of_a_chunk_whose_source_went_is_acknowledged(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a redelivery after a crash, or other worker groups, bring a good session to ERROR."""
    known = Session.is_settled
    asked: list[int] = []

    def late(session: Session, index: int) -> bool:
        """What the log says reaches this process while the job is at work."""
        asked.append(index)
        return known(session, index) if asked.count(index) > 1 else False

    async with system(server, tmp_path, worker=False) as world:
        async with running(run_worker, world):
            host = await live(world)
        await fill(world)
        async with looking(world) as (source, _):
            assert await source.purge_due() == ["live-01"]
        monkeypatch.setattr(Session, "is_settled", late)
        await drive(world, host, [0, 1])
        async with running(run_worker, world):
            await host.final()
            await world.until("live-01", "STOPPED")
        assert {0, 1} <= set(asked)
        assert await dead(world) == []
        await verified(world, "live-01", tmp_path)


async def drive(world: World, host: Host, indices: list[int]) -> None:
    """Give out claims again, as a recovery does."""
    known = ChunkProgress("live-01")
    await known.read_on(world.jet)
    for index in indices:
        event = Redriven(
            session="live-01", uid=host.grant.uid, run=1, index=index, recorded=known.recorded[index]
        )
        subject = subjects.chunk(subjects.REDRIVEN, "live-01")
        await world.jet.publish(subject, event.model_dump_json().encode())


async def test_a_worker_that_lags_takes_up_what_another_recorded_and_let_go(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a worker that was frozen waits for fragments that are gone, and its session never ends."""
    look, thawed, first = Ingest._look, asyncio.Event(), []

    async def frozen(ingest: Ingest, batch: Sequence[Message], size: int, looked: Any) -> None:
        first.append(ingest)
        if ingest is first[0] and batch[-1].seq > 13:
            await thawed.wait()
            stream = batch[0].stream
            there = await ingest._jet.get_many(stream, [message.seq for message in batch])
            # it is only now that they are read
            batch = [replace(message, stream=stream) for message in there.values()]
        if batch:
            await look(ingest, batch, size, looked)

    monkeypatch.setattr(Ingest, "_look", frozen)
    async with system(server, tmp_path) as world:
        host = await live(world, fragments=12)
        async with running(run_worker, world):
            await host.record(14)
            await world.stored("live-01", 5)
        await fill(world)
        async with looking(world) as (source, _):
            assert await source.purge_due() == ["live-01"]
        thawed.set()
        await host.final()
        await world.until("live-01", "STOPPED")
        assert (await verified(world, "live-01", tmp_path)).totals.fragments == len(host.sent)


class Struck:
    """A connection that fails at the given one of its effects: before it is done, or after."""

    def __init__(self, jet: Any, at: int, *, applied: bool) -> None:
        self._jet, self._left, self._applied = jet, at, applied

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._jet, name)
        if name not in ("append", "purge", "delete"):
            return found

        async def struck(*args: Any, **more: Any) -> Any:
            self._left -= 1
            if self._left < 0 and not self._applied:
                raise Unavailable("failed", code="test.failed")
            done = await found(*args, **more)
            if self._left < 0:
                raise Unavailable("failed, but was applied", code="test.applied")
            return done

        return struck


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("at", [0, 1, 2, 9], ids=["append", "purge", "delete", "a later delete"])
async def test_a_crash_between_log_and_purge_is_made_good_by_the_next_look(
    server: NatsServer, tmp_path: Path, at: int, applied: bool
) -> None:
    """Breaks: the power fails there, and the space is never freed, or chunks are lost."""
    async with system(server, tmp_path) as world:
        host = await world.start("live-01")
        await host.record(2)
        _, tail = await events_track(host, range(3))
        await host.record(FRAGMENTS - 2)
        await world.stored("live-01", 5)
        await fill(world)
        async with looking(world, jet=Struck(world.jet, at, applied=applied)) as (source, _):
            with pytest.raises(Unavailable, match=r"test\."):
                await source.purge_due()
        await fill(world)
        async with looking(world) as (source, _):
            await source.purge_due()
        assert await fragments(world, host) == [0, 1, 2, 26]
        assert [event.index async for event in recorded_events(world.jet, "live-01")] == [0, 1, 2, 3, 4]  # type: ignore[union-attr]
        await host.send(host.sealer.final([tail], host.now_us))
        await world.until("live-01", "STOPPED")
        assert (await verified(world, "live-01", tmp_path)).totals.fragments == len(host.sent)
        assert await held(world) == {"live-01"}


async def test_a_session_that_is_aborted_after_its_prefix_went_ends_as_it_was_taken(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: the platform's own ending cannot be made, because the beginning is gone."""
    async with system(server, tmp_path) as world:
        host = await live(world)
        await fill(world)
        async with looking(world) as (source, _):
            assert await source.purge_due() == ["live-01"]
        await world.ask("abort", "live-01")
        await world.until("live-01", "STOPPED")
        manifest = await verified(world, "live-01", tmp_path)
        assert (manifest.end, manifest.totals.fragments) == ("aborted", len(host.sent))
