"""The stage `record` that comes back, falls behind, loses to another owner or is paused, on a real server."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from handlers.stages.record.fold import Fold
from handlers.stages.record.pieces import FoldedFragment, Identity
from infra.blobs.disk import DiskBlobs
from infra.jetstream import Jet, connect, merged_follower
from infra.jetstream.read_pace import POOL_BYTES, ReadBudget
from infra.nats_server import server as nats_server
from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.events.chunk import Ended, Recorded
from streams.event_store.recordings import Recordings
from streams.pipeline.record import held_fragments, subject_reader
from streams.pipeline.record import recording as record
from streams.pipeline.record.held_fragments import HELD_BYTES
from tests.support.machine.waiting import PATIENCE_S, until
from tests.support.pipeline.both_verifiers import verified
from tests.support.pipeline.conducted import system
from tests.support.pipeline.prepared import Prepared, Step, one_shard
from tests.support.pipeline.record_stage import (
    CAUGHT_UP,
    FOLLOWED,
    MOMENTS,
    begin,
    count,
    ended,
    events,
    folded,
    fragments,
    identity,
    known,
    record_stage,
    recorded,
    recording,
    send,
)


@pytest.mark.parametrize("gap", ["between reading and folding", "while the end is confirmed"])
async def test_nothing_is_lost_between_what_is_held_and_what_is_read_again(
    jet: Jet, monkeypatch: pytest.MonkeyPatch, gap: str
) -> None:
    """Breaks: a session that catches up under load declares fragments lost that the stream holds."""
    ours_name, beside = one_shard("demo-01", "demo-02")
    prepared, other = Prepared(ours_name, 1, [("data", 500)] * 10), Prepared(beside, 2, [])
    confirming = gap == "while the end is confirmed"
    begun, may_go_on = asyncio.Event(), asyncio.Event()
    await begin(jet, prepared, other)
    behind = await send(jet, prepared, range(4))
    if confirming:
        behind = await send(jet, other, [0])  # up to here, where nothing of the session is
    else:
        await send(jet, prepared, range(4, 12))

    async def slowly(call: Callable[..., Any], *given: Any) -> Any:
        found = await call(*given)
        if given[0] != subjects.CHUNKS and not begun.is_set():
            begun.set()
            await may_go_on.wait()
        return found

    async with recording(jet, prepared) as ours:
        slow, name = (jet, "last") if confirming else (ours._stream, "look")
        real = getattr(slow, name)
        monkeypatch.setattr(slow, name, lambda *given: slowly(real, *given))
        ours.catch_up(behind)
        await begun.wait()
        if confirming:
            await send(jet, prepared, range(4, 12))
        stream = [m async for m in (await Recordings.open(jet)).read_all(prepared.subject)]
        arrivals = ours.look(stream)
        for one in arrivals[4:6]:
            ours.take(one)
        ours._shared.held_bytes += HELD_BYTES  # other sessions fill what may be held
        ours.take(arrivals[6])
        ours._shared.held_bytes -= HELD_BYTES
        ours.take(arrivals[7])
        may_go_on.set()
        await until(lambda: ours._catching is None)
        for one in arrivals[8:]:
            ours.take(one)
        found = await ended(jet, prepared)
        assert ours._shared.held_bytes == 0
    assert found == await folded(jet, prepared)
    assert [event.closed_by for event in found if isinstance(event, Recorded)] == ["final"]
    assert count(found) == 12


async def test_a_host_that_sends_on_while_its_session_catches_up_loses_nothing(
    jet: Jet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: as above, through the reader, with as many overflows as come."""
    monkeypatch.setattr(held_fragments, "HELD_BYTES", 4000)
    monkeypatch.setattr(subject_reader, "READ_BYTES", 8000)
    prepared = Prepared("demo-01", 1, [("data", 900)] * 300)
    await begin(jet, prepared)
    await send(jet, prepared, range(60))
    async with record_stage(jet):
        for first in range(60, 302, 22):
            await send(jet, prepared, range(first, first + 22))
        found = await ended(jet, prepared)
    assert found == await folded(jet, prepared)
    assert [event.closed_by for event in found if isinstance(event, Recorded)] == ["size", "final"]


def first_chunk(who: Identity, pieces: list[FoldedFragment]) -> Recorded:
    """The first event of somebody's fold over these fragments."""
    fold = Fold(who)
    return next(out for piece in pieces for out in fold.take(piece) if isinstance(out, Recorded))


@pytest.mark.parametrize("moment", MOMENTS)
async def test_who_loses_to_another_owner_takes_up_the_winners_fold(
    jet: Jet, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Breaks: two workers of two versions record one session, and it forks, or never ends."""
    waits: list[Step] = [("data", 800), ("wait", 2), ("data", 700)]
    prepared = Prepared("demo-01", 1, [*waits * 3, ("pause", 0), *waits * 3, ("pause", 0), *waits])
    to_pause = 11  # part, then three times data, tick, data, then the pause that closes our first chunk
    await begin(jet, prepared)
    await send(jet, prepared, range(to_pause - 1))
    other = prepared.settings.model_copy(update={"chunk_max_seconds": 1})
    pieces = await fragments(jet, prepared)
    winner = first_chunk(replace(identity(prepared), settings=other), pieces)
    subject, raw = subjects.chunk(subjects.RECORDED, prepared.session), winner.model_dump_json().encode()
    real_append, real_batch, real_void = jet.append, jet.batch, record.Recording._void
    under_way: list[bool] = []
    lost = asyncio.Event()

    async def append(where: str, data: bytes, expected: int, **more: Any) -> int:
        if where == subject and not lost.is_set():
            await real_append(where, raw, 0)
        return await real_append(where, data, expected, **more)

    async def batch(stream: str, where: str, after: int, **more: Any) -> Any:
        if stream.startswith(subjects.RECORDINGS):
            if after > to_pause:
                await lost.wait()
            more["max_messages"] = 2
        return await real_batch(stream, where, after, **more)

    def void(recording: record.Recording) -> None:
        under_way.append(not stage.followed(prepared))
        real_void(recording)
        lost.set()

    if moment == CAUGHT_UP:
        await send(jet, prepared, range(to_pause - 1, len(prepared.fragments)))
        monkeypatch.setattr(jet, "append", append)
        monkeypatch.setattr(jet, "batch", batch)
        monkeypatch.setattr(record.Recording, "_void", void)
    async with record_stage(jet) as stage:
        if moment == FOLLOWED:
            await known(stage, prepared)
            await jet.append(subject, raw, 0)
            await send(jet, prepared, range(to_pause - 1, len(prepared.fragments)))
        await ended(jet, prepared)
        monkeypatch.undo()
    rest = Fold.restore(identity(prepared), winner.state, pieces)
    later = [piece for piece in await fragments(jet, prepared) if piece.stream_seq > winner.state.at]
    outputs = [*rest.settle_waiting(), *(output for piece in later for output in rest.take(piece))]
    found = await events(jet, prepared)
    assert found == [winner, *outputs]
    assert isinstance(found[-1], Ended)
    assert found != await folded(jet, prepared), "there was nothing to fork"
    assert under_way == ([True] if moment == CAUGHT_UP else [])


async def test_sixty_open_sessions_come_back_without_a_disconnect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a worker that restarts asks for more than the server gives, is cut off, and asks again."""
    # A thirty-second of the real bytes, and of the real limits.
    monkeypatch.setattr(merged_follower, "ReadBudget", partial(ReadBudget, POOL_BYTES // 32))
    monkeypatch.setattr(nats_server, "MAX_PENDING", nats_server.MAX_PENDING // 32)
    monkeypatch.setattr(subject_reader, "READ_BYTES", subject_reader.READ_BYTES // 32)
    server = NatsServer(tmp_path / "nats", max_file=4 << 30)
    await server.start()
    jet = await connect(server.url, name="host")
    steps: list[Step] = [("data", 30_000), ("pause", 0), *[("data", 30_000)] * 4]
    sessions = [Prepared(f"demo-{n:02}", n, steps) for n in range(1, 61)]
    await begin(jet, *sessions)
    for prepared in sessions:
        await send(jet, prepared, range(8))
    for last, wanted in ((range(0), 1), (range(8, 9), 3)):
        # First from the beginning, then from checkpoints that name four fragments each.
        worker = await connect(server.url, name="worker")
        async with record_stage(worker) as stage:
            await known(stage, *sessions)
            await asyncio.gather(*(send(jet, prepared, last) for prepared in sessions))
            for prepared in sessions:
                await recorded(jet, prepared.session, wanted)
        assert worker._conn.breaks == 0
        await worker.close()
    for prepared in sessions[::10]:
        assert await events(jet, prepared) == await folded(jet, prepared)
    await jet.close()
    await server.stop()


async def test_the_ending_of_another_recording_ends_no_pause(jet: Jet) -> None:
    """Breaks: a host's older final, sent again under a paused session, ends that pause and all later ones."""
    prepared, older = Prepared("demo-01", 2, [("data", 500)] * 3), Prepared("demo-00", 1, [])
    await begin(jet, prepared)
    await jet.publish(prepared.subject, older.fragments[-1])
    await send(jet, prepared, range(3))
    sent = [message async for message in (await Recordings.open(jet)).read_all(prepared.subject)]
    async with recording(jet, prepared) as one:
        one.pause(True)
        for arrival in one.look(sent):
            one.take(arrival)
        assert one._position == 0
        one.pause(False)
        await until(lambda: one._position == sent[-1].seq)
        assert one._refusals.count == 1


async def test_a_paused_session_folds_nothing_until_it_is_resumed(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: PAUSE stops nothing, never ends, or costs what the host sent meanwhile."""
    may_store, heard = threading.Event(), asyncio.Event()
    real_put, real_pause = DiskBlobs.put, record.Recording.pause

    def put(blobs: DiskBlobs, name: str, data: Any) -> Any:
        assert blobs.root.name != "chunks" or may_store.wait(PATIENCE_S)
        return real_put(blobs, name, data)

    def pause(recording: record.Recording, paused: bool) -> None:
        real_pause(recording, paused)
        if paused:
            heard.set()

    monkeypatch.setattr(DiskBlobs, "put", put)
    monkeypatch.setattr(record.Recording, "pause", pause)
    async with system(server, tmp_path) as world:
        host, other = await world.start("demo-01"), await world.start("demo-02", "host-2")

        async def chunks_when_all_is_looked_at() -> int:
            """One reader reads all: when another session has one more chunk, it has seen what came before."""
            await other.record(6)
            await recorded(world.jet, "demo-02", (len(other.sent) - 2) // 5)
            subject = subjects.chunk(subjects.RECORDED, "demo-01")
            return len([m async for m in world.jet.read_all(subjects.CHUNKS, subject)])

        await host.record(12)
        await recorded(world.jet, "demo-01", 2)
        await world.ask("pause", "demo-01")
        await heard.wait()
        await host.record(12)
        assert await chunks_when_all_is_looked_at() == 2
        assert (await world.ask("show", "demo-01"))["state"] == "PAUSING", "two chunks are in flight"
        may_store.set()
        await world.until("demo-01", "PAUSED")
        await host.record(12)
        assert await chunks_when_all_is_looked_at() == 2
        await world.ask("resume", "demo-01")
        await host.record(4)
        await host.final()
        await world.until("demo-01", "STOPPED")
        manifest = await verified(world, "demo-01", tmp_path)
        assert (manifest.end, manifest.gaps) == ("final", ())
        assert manifest.totals.fragments == len(host.sent) == 42
