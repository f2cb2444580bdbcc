"""The stage `record` against a real server: what hosts may send, what may fail, and what must come out."""

import asyncio
import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from conducted import system
from prepared import Prepared, Step
from record_stage import (
    Events,
    Stage,
    begin,
    dead,
    ended,
    events,
    folded,
    fragments,
    identity,
    record_stage,
    recorded,
    recording,
    send,
    until,
)
from test_conducted import verified

from handlers.stages.fold_terms import Identity, Output
from handlers.stages.open_chunk import Piece
from handlers.stages.record import Fold
from infra import nats_server
from infra.blobs_disk import DiskBlobs
from infra.jetstream import Jet, connect
from infra.nats_server import NatsServer
from schemas import subjects
from schemas.chunk_events import Ended, Recorded
from schemas.fragment import parse
from streams import arrival, aside, ingest
from streams import recording as record
from streams.recording import HELD_BYTES

TWO_CHUNKS: list[Step] = [("data", 3000), ("pause", 0), ("data", 2000), ("data", 1000)]
FOLLOWED, CAUGHT_UP = MOMENTS = ("while it is followed", "while it catches up")


async def known(stage: Stage, *sessions: Prepared) -> None:
    """Return when the sessions are followed: what they send from now on is not read again."""
    await until(lambda: all(stage.followed(prepared) for prepared in sessions))


def count(found: Events) -> int:
    """Fragments inside chunks."""
    return sum(len(event.stream) for event in found if isinstance(event, Recorded))


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(
    ("garbage", "headers"),
    [(os.urandom(900 << 10), {}), (b"", {}), (b"x", {"traceparent": "x" * (60 << 10)})],
    ids=["900 KiB", "nothing", "headers"],
)
async def test_a_refused_message_is_kept_in_part_and_the_session_goes_on(
    jet: Jet, moment: str, garbage: bytes, headers: dict[str, str]
) -> None:
    """Breaks: one message that is no fragment ends a recording, or the worker."""
    prepared = Prepared("demo-01", 1, TWO_CHUNKS)
    await begin(jet, prepared)

    async def host() -> None:
        await send(jet, prepared, range(3))
        await jet.publish(prepared.subject, garbage, headers)
        await send(jet, prepared, range(3, 7))

    if moment == CAUGHT_UP:
        await host()
    async with record_stage(jet) as stage:
        if moment == FOLLOWED:
            await known(stage, prepared)
            await host()
        found = await ended(jet, prepared)
        (letter,) = await dead(jet, prepared, 1)
    assert found == await folded(jet, prepared)
    assert count(found) == 7
    assert (letter.stage, letter.index) == ("record", -1)
    assert letter.code == ("fragment.size" if len(garbage) < 160 else "fragment.magic")
    assert letter.body == garbage[: aside.BODY_BYTES]


async def test_what_a_host_calls_its_trace_is_a_trace_or_nothing(jet: Jet) -> None:
    """Breaks: a host's header makes an event that no stream takes, and its session ends there."""
    prepared = Prepared("demo-01", 1, TWO_CHUNKS)
    good = f"00-{'a' * 32}-{'b' * 16}-01"
    await begin(jet, prepared)
    traces = {0: "x" * (60 << 10), 1: "00-abc", 4: good, 5: good.replace("a", "c")}
    for number, fragment in enumerate(prepared.fragments):
        await jet.publish(prepared.subject, fragment, {"traceparent": traces.get(number, "")})
    async with record_stage(jet):
        await ended(jet, prepared)
    subject = subjects.chunk(subjects.RECORDED, prepared.session)
    messages = [m async for m in jet.read_all(subjects.CHUNKS, subject)]
    assert [m.headers.get("traceparent") for m in messages] == [None, good, None]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("place", ["looked at", "folded"])
async def test_an_error_that_nobody_foresaw_stops_one_session_until_it_is_mended(
    jet: Jet, monkeypatch: pytest.MonkeyPatch, moment: str, place: str
) -> None:
    """Breaks: a bug that one host's bytes bring out stops every recording, or its own for good."""
    ours, other = Prepared("demo-01", 1, TWO_CHUNKS), Prepared("demo-02", 2, TWO_CHUNKS)
    broken = {place}
    monkeypatch.setattr(record, "RETRY_S", 0.3)
    real_admit, real_take = arrival.admit, Fold.take

    def admit(whole: bytes, *who: Any) -> Any:
        if "looked at" in broken and whole == ours.fragments[5]:
            raise KeyError("nobody foresaw this")
        return real_admit(whole, *who)

    def take(fold: Fold, piece: Piece) -> list[Output]:
        if "folded" in broken and (fold.identity.session, piece.header.seq) == (ours.session, 5):
            raise KeyError("nobody foresaw this")
        return real_take(fold, piece)

    monkeypatch.setattr(arrival, "admit", admit)
    monkeypatch.setattr(Fold, "take", take)
    await begin(jet, ours, other)
    if moment == CAUGHT_UP:
        await send(jet, ours)
        await send(jet, other, range(4))
    async with record_stage(jet) as stage:
        await until(lambda: ours.session in stage.ingest._recordings)
        if moment == FOLLOWED:
            await known(stage, ours, other)
            await send(jet, ours, range(6))  # it fails at the last, which must be read again all the same
            await send(jet, other, range(4))
        await send(jet, other, range(4, 7))
        await ended(jet, other, 5)
        assert not isinstance((await events(jet, ours))[-1], Ended)
        assert not stage.followed(ours)
        broken.clear()
        if moment == FOLLOWED:
            await known(stage, ours)
            await send(jet, ours, [6])
        found = await ended(jet, ours, 5)
    assert found == await folded(jet, ours)
    assert count(found) == 7


@pytest.mark.parametrize("status", ["100", "204", "404", "429", "500", "503", "x"])
async def test_a_stored_message_is_no_answer_of_the_server(jet: Jet, status: str) -> None:
    """Breaks: a host ends the reading of its own recording by a header, and what follows is lost."""
    prepared = Prepared("demo-01", 1, TWO_CHUNKS)
    await begin(jet, prepared)
    await send(jet, prepared, range(2))
    await jet.publish(prepared.subject, b"", {"Status": status, "Description": "no more"})
    await send(jet, prepared, range(2, 7))
    async with record_stage(jet):
        found = await ended(jet, prepared, 5)
    assert found == await folded(jet, prepared)
    assert count(found) == 7


async def test_what_the_server_says_of_a_message_is_read_from_the_server(jet: Jet) -> None:
    """Breaks: a fragment that came with forged headers is not read again, and its session never ends."""
    prepared = Prepared("demo-01", 1, TWO_CHUNKS)
    names = ("Sequence", "Subject", "Stream", "Time-Stamp", "Num-Pending", "Last-Sequence")
    await begin(jet, prepared)
    await send(jet, prepared, range(2))
    # It comes early, so the checkpoint names it, and it is read by its number.
    await jet.publish(prepared.subject, prepared.fragments[4], {f"Nats-{name}": "x" for name in names})
    await send(jet, prepared, [2])
    async with record_stage(jet) as stage:
        await known(stage, prepared)
        await until(lambda: not stage.ingest._recordings[prepared.session]._checkpoints.waiting)
    (first,) = await events(jet, prepared)
    assert first.state.named == [3]
    await send(jet, prepared, [3, 5, 6])
    async with record_stage(jet):
        found = await ended(jet, prepared, 5)
    assert found == await folded(jet, prepared)
    assert count(found) == 7


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("block", [b"x", b"NATS/1.0", b"NATS/1.0 \xff\xff\r\n", b"NATS/1.0 404 \xff\r\n\r\n"])
async def test_a_header_block_that_nobody_can_read_stops_no_one(
    server: NatsServer, jet: Jet, moment: str, block: bytes
) -> None:
    """Breaks: eight bytes from one host end the worker's connection, and every recording with it."""
    prepared = Prepared("demo-01", 1, TWO_CHUNKS)
    await begin(jet, prepared)

    async def host() -> None:
        await send(jet, prepared, range(2))
        await publish_raw(server, prepared.subject, block)
        await send(jet, prepared, range(2, 7))

    if moment == CAUGHT_UP:
        await host()
    worker = await connect(server.url, name="worker")
    async with record_stage(worker) as stage:
        if moment == FOLLOWED:
            await known(stage, prepared)
            await host()
        found = await ended(jet, prepared, 5)
    assert count(found) == 7
    assert found == await folded(worker, prepared)
    assert worker._conn.breaks == 0
    await worker.close()


async def publish_raw(server: NatsServer, subject: str, headers: bytes) -> None:
    """Publish nothing under a header block as it is: a host need not use a driver."""
    url = urlsplit(server.url)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    await reader.readline()
    login = {"user": url.username, "pass": url.password, "headers": True, "verbose": False, "protocol": 1}
    writer.write(f"CONNECT {json.dumps(login)}\r\nHPUB {subject} {len(headers)} {len(headers)}\r\n".encode())
    writer.write(headers + b"\r\nPING\r\n")
    assert await reader.readline() == b"PONG\r\n"
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("gap", ["between reading and folding", "while the end is confirmed"])
async def test_nothing_is_lost_between_what_is_held_and_what_is_read_again(
    jet: Jet, monkeypatch: pytest.MonkeyPatch, gap: str
) -> None:
    """Breaks: a session that catches up under load declares fragments lost that the stream holds."""
    prepared, other = Prepared("demo-01", 1, [("data", 500)] * 10), Prepared("demo-02", 2, [])
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
        slow, name = (jet, "last") if confirming else (ours, "_look")
        real = getattr(slow, name)
        monkeypatch.setattr(slow, name, lambda *given: slowly(real, *given))
        ours.catch_up(behind)
        await begun.wait()
        if confirming:
            await send(jet, prepared, range(4, 12))
        stream = [m async for m in jet.read_all(subjects.RECORDINGS, prepared.subject)]
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
        found = await ended(jet, prepared, 5)
        assert ours._shared.held_bytes == 0
    assert found == await folded(jet, prepared)
    assert [event.closed_by for event in found if isinstance(event, Recorded)] == ["final"]
    assert count(found) == 12


async def test_a_host_that_sends_on_while_its_session_catches_up_loses_nothing(
    jet: Jet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: as above, through the reader, with as many overflows as come."""
    monkeypatch.setattr(record, "HELD_BYTES", 4000)
    monkeypatch.setattr(record, "WALK_BYTES", 8000)
    prepared = Prepared("demo-01", 1, [("data", 900)] * 300)
    await begin(jet, prepared)
    await send(jet, prepared, range(60))
    async with record_stage(jet):
        for first in range(60, 302, 22):
            await send(jet, prepared, range(first, first + 22))
        found = await ended(jet, prepared)
    assert found == await folded(jet, prepared)
    assert [event.closed_by for event in found if isinstance(event, Recorded)] == ["size", "final"]


def first_chunk(who: Identity, pieces: list[Piece]) -> Recorded:
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
    real_append, real_batch = jet.append, jet.batch
    under_way: list[bool] = []

    async def append(where: str, data: bytes, expected: int, **more: Any) -> int:
        if where == subject and not under_way:
            await real_append(where, raw, 0)
            under_way.append(not stage.followed(prepared))
        return await real_append(where, data, expected, **more)

    async def batch(stream: str, *given: Any, **more: Any) -> Any:
        if stream == subjects.RECORDINGS:
            await asyncio.sleep(0.02)
            more["max_messages"] = 2
        return await real_batch(stream, *given, **more)

    if moment == CAUGHT_UP:
        await send(jet, prepared, range(to_pause - 1, len(prepared.fragments)))
        monkeypatch.setattr(jet, "append", append)
        monkeypatch.setattr(jet, "batch", batch)
    async with record_stage(jet) as stage:
        if moment == FOLLOWED:
            await known(stage, prepared)
            await jet.append(subject, raw, 0)
            await send(jet, prepared, range(to_pause - 1, len(prepared.fragments)))
        await ended(jet, prepared)
        monkeypatch.undo()
    rest = Fold.restore(identity(prepared), winner.state, pieces)
    later = [piece for piece in await fragments(jet, prepared) if piece.stream_seq > winner.state.at]
    outputs = [*rest.drain(), *(output for piece in later for output in rest.take(piece))]
    found = await events(jet, prepared)
    assert found == [winner, *outputs]
    assert isinstance(found[-1], Ended)
    assert found != await folded(jet, prepared), "there was nothing to fork"
    assert under_way == ([True] if moment == CAUGHT_UP else [])


async def test_sixty_open_sessions_come_back_without_a_disconnect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a worker that restarts asks for more than the server gives, is cut off, and asks again."""
    # A thirty-second of the real bytes, and of the real limit.
    monkeypatch.setattr(nats_server, "MAX_PENDING", nats_server.MAX_PENDING // 32)
    monkeypatch.setattr(record, "WALK_BYTES", record.WALK_BYTES // 32)
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


@pytest.mark.parametrize("errand", ["a late double", "a dead letter"])
async def test_an_errand_of_one_session_holds_up_none(
    jet: Jet, monkeypatch: pytest.MonkeyPatch, errand: str
) -> None:
    """Breaks: a host that repeats itself, or sends rubbish, makes every other recording wait."""
    ours, other = Prepared("demo-01", 1, TWO_CHUNKS), Prepared("demo-02", 2, TWO_CHUNKS)
    may_go_on, begun = asyncio.Event(), asyncio.Event()
    await begin(jet, ours, other)
    await send(jet, ours, range(4))
    real_find, real_publish = record.find_fragment, jet.publish

    async def wait() -> None:
        begun.set()
        await may_go_on.wait()

    async def find(*given: Any) -> Any:
        await wait()
        return await real_find(*given)

    async def publish(subject: str, *given: Any, **more: Any) -> Any:
        if subject.startswith("lucid.dead."):
            await wait()
        return await real_publish(subject, *given, **more)

    async with record_stage(jet) as stage:
        await known(stage, ours, other)
        await recorded(jet, ours.session, 1)
    # A new process does not remember what it took before: the double must be looked up.
    async with record_stage(jet) as stage:
        await known(stage, ours, other)
        if errand == "a late double":
            monkeypatch.setattr(record, "find_fragment", find)
            await send(jet, ours, [1, 1, 0])
        else:
            monkeypatch.setattr(jet, "publish", publish)
            await jet.publish(ours.subject, b"rubbish")
        await begun.wait()
        for prepared in (other, ours):
            await send(jet, prepared, range(0 if prepared is other else 4, 7))
            assert count(await ended(jet, prepared, 5)) == 7
        may_go_on.set()
        letters = await dead(jet, ours, 0 if errand == "a late double" else 1)
        assert [letter.code for letter in letters] == ([] if errand == "a late double" else ["fragment.size"])
    assert await events(jet, other) == await folded(jet, other)


async def test_another_version_of_an_old_fragment_is_kept_as_proof(jet: Jet) -> None:
    """Breaks: a host that tells two stories is found out only while the first is still in memory."""
    ours, again = (Prepared("demo-01", 1, TWO_CHUNKS) for _ in range(2))
    assert ours.fragments[1] != again.fragments[1], "sealing draws keys"
    await begin(jet, ours)
    await send(jet, ours, range(4))
    async with record_stage(jet) as stage:
        await known(stage, ours)
        await recorded(jet, ours.session, 1)
    async with record_stage(jet) as stage:
        await known(stage, ours)
        await send(jet, ours, [1])
        await send(jet, again, [1])
        await until(lambda: stage.ingest._recordings[ours.session]._fold.equivocations == 1)
        await send(jet, ours, range(4, 7))
        found = await ended(jet, ours)
    (proof,) = [e for event in found for e in event.equivocations]
    taken, other = (parse(prepared.fragments[1]) for prepared in (ours, again))
    assert (proof.track, proof.seq) == (0, 1)
    assert proof.a == taken.raw_header + taken.body_digest + taken.signature
    assert proof.b == other.raw_header + other.body_digest + other.signature


@pytest.mark.parametrize("moment", MOMENTS)
async def test_another_hosts_messages_change_nothing_of_a_session(
    jet: Jet, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Breaks: any host can spoil any recording whose name it knows."""
    monkeypatch.setattr(ingest, "STRAYS", 5)
    prepared = Prepared("demo-01", 1, TWO_CHUNKS)
    stray = subjects.recording("evil", prepared.session)
    await begin(jet, prepared)

    async def hosts() -> None:
        for number, fragment in enumerate(prepared.fragments):
            await jet.publish(stray, prepared.fragments[-1])  # a good one, but from the wrong mouth
            await jet.publish(stray, b"rubbish")
            await send(jet, prepared, [number])
            await jet.publish(stray, fragment)

    if moment == CAUGHT_UP:
        await hosts()
    async with record_stage(jet) as stage:
        await known(stage, prepared)
        if moment == FOLLOWED:
            await hosts()
        found = await ended(jet, prepared, 5)
        assert stage.ingest._recordings[prepared.session].invalid == 0
        letters = await dead(jet, prepared, 5 if moment == FOLLOWED else 0)
    assert found == await folded(jet, prepared)
    assert count(found) == 7
    assert not any(event.equivocations for event in found)
    assert [letter.code for letter in letters] == ["fragment.host"] * (5 if moment == FOLLOWED else 0)


async def test_a_paused_session_folds_nothing_until_it_is_resumed(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: PAUSE stops nothing, never ends, or costs what the host sent meanwhile."""
    may_store, heard = threading.Event(), asyncio.Event()
    real_put, real_pause = DiskBlobs.put, record.Recording.pause

    def put(blobs: DiskBlobs, name: str, data: Any) -> Any:
        assert blobs.root.name != "chunks" or may_store.wait(20)
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
