"""What hosts may send to the stage `record`, against a real server: nothing of it stops anyone."""

import asyncio
import os
from typing import Any

import pytest

from handlers.stages.record import admit as admitting
from handlers.stages.record.fold import Fold
from handlers.stages.record.pieces import FoldedFragment, Output
from infra.jetstream import Jet, connect
from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.events import headers
from schemas.events.chunk import Ended, Recorded
from schemas.events.headers import MOST_BYTES, TOO_LONG
from schemas.format.fragment import parse
from schemas.telemetry.trace_context import FIRST_KEY, TraceContext, span_of, stretch_trace
from streams.event_store import dead_letters
from streams.event_store.chunk_log import stream_seqs
from streams.event_store.recordings import Recordings
from streams.pipeline.record import ingest, refusals
from streams.pipeline.record import recording as record
from tests.support.machine.waiting import until
from tests.support.pipeline.prepared import Prepared
from tests.support.pipeline.record_stage import (
    CAUGHT_UP,
    FOLLOWED,
    MOMENTS,
    TWO_CHUNKS,
    begin,
    count,
    dead,
    ended,
    events,
    folded,
    known,
    meeting,
    record_stage,
    recorded,
    recording,
    send,
)
from tests.support.servers.raw_client import publish_raw


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(
    ("garbage", "code"), [(os.urandom(900 << 10), "fragment.magic"), (b"", "fragment.size")]
)
async def test_a_refused_message_is_kept_in_part_and_the_session_goes_on(
    jet: Jet, moment: str, garbage: bytes, code: str
) -> None:
    """Breaks: one message that is no fragment ends a recording, or the worker."""
    prepared = Prepared("demo-01", 1, TWO_CHUNKS)
    await begin(jet, prepared)

    async def host() -> None:
        await send(jet, prepared, range(3))
        await jet.publish(prepared.subject, garbage)
        await send(jet, prepared, range(3, 7))

    async with meeting(jet, prepared, moment, host):
        found = await ended(jet, prepared)
        (letter,) = await dead(jet, prepared, 1)
    assert found == await folded(jet, prepared)
    assert count(found) == 7
    assert (letter.stage, letter.index, letter.code) == ("record", -1, code)
    assert letter.body == garbage[: dead_letters.BODY_BYTES]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("name", ["traceparent", "ce-id", "x"])
async def test_a_fragment_under_oversized_headers_is_none_and_may_come_again(
    jet: Jet, moment: str, name: str
) -> None:
    """Breaks: what is no part of the evidence fills memory and log, or a refusal takes a fragment's place."""
    prepared = Prepared("demo-01", 1, TWO_CHUNKS)
    await begin(jet, prepared)

    async def host() -> int:
        await send(jet, prepared, range(2))
        refused = await jet.publish(prepared.subject, prepared.fragments[2], {name: "x" * MOST_BYTES})
        await jet.publish(prepared.subject, prepared.fragments[2], {name: "x" * (MOST_BYTES - len(name))})
        await send(jet, prepared, range(3, 7))
        return refused.seq

    refused = await host() if moment == CAUGHT_UP else 0
    async with record_stage(jet) as stage:
        if moment == FOLLOWED:
            await known(stage, prepared)
            refused = await host()
        found = await ended(jet, prepared)
        (letter,) = await dead(jet, prepared, 1)
    assert count(found) == 7
    assert refused not in [seq for one in found if isinstance(one, Recorded) for seq in stream_seqs(one)]
    assert (letter.seq, letter.body) == (refused, prepared.fragments[2])
    assert (letter.code, letter.message) == ("fragment.headers", TOO_LONG)


async def test_what_was_taken_under_longer_headers_stays_taken(
    jet: Jet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a checkpoint names what the next owner refuses, and the session never ends."""
    prepared = Prepared("demo-01", 1, [("data", 200_000)] * 3)
    await begin(jet, prepared)
    monkeypatch.setattr(headers, "MOST_BYTES", 1 << 20)
    for fragment in prepared.fragments[:3]:  # the last one closes a chunk, and stands open in its checkpoint
        await jet.publish(prepared.subject, fragment, {"x": "x" * MOST_BYTES})
    async with record_stage(jet):
        await recorded(jet, prepared.session, 1)
    monkeypatch.undo()
    async with record_stage(jet):
        await send(jet, prepared, range(3, len(prepared.fragments)))
        assert count(await ended(jet, prepared)) == len(prepared.fragments)


async def test_what_a_host_calls_its_trace_is_a_trace_or_nothing(jet: Jet) -> None:
    """Breaks: a host's header makes an event that no stream takes, and its session ends there."""
    prepared = Prepared("demo-01", 1, TWO_CHUNKS)
    trace = stretch_trace(prepared.uid, 1).hex()
    good = str(TraceContext(trace, span_of(trace, FIRST_KEY), True))
    await begin(jet, prepared)
    traces = {0: "x" * 3000, 1: "00-abc", 4: good, 5: good.replace("a", "c")}
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
    real_admit, real_take = admitting.admit, Fold.take

    def admit(whole: bytes, *who: Any) -> Any:
        if "looked at" in broken and whole == ours.fragments[5]:
            raise KeyError("nobody foresaw this")
        return real_admit(whole, *who)

    def take(fold: Fold, piece: FoldedFragment) -> list[Output]:
        if "folded" in broken and (fold.identity.session, piece.header.seq) == (ours.session, 5):
            raise KeyError("nobody foresaw this")
        return real_take(fold, piece)

    monkeypatch.setattr(admitting, "admit", admit)
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
        await ended(jet, other)
        await recorded(jet, ours.session, 1)
        assert not isinstance((await events(jet, ours))[-1], Ended)
        assert not stage.followed(ours)
        broken.clear()
        if moment == FOLLOWED:
            await known(stage, ours)
            await send(jet, ours, [6])
        found = await ended(jet, ours)
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
        found = await ended(jet, prepared)
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
        await until(lambda: not stage.ingest._recordings[prepared.session]._checkpoints._task)
    (first,) = await events(jet, prepared)
    assert first.state.named == [3]
    await send(jet, prepared, [3, 5, 6])
    async with record_stage(jet):
        found = await ended(jet, prepared)
    assert found == await folded(jet, prepared)
    assert count(found) == 7


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_message_has_the_same_headers_whichever_way_it_is_read(jet: Jet, moment: str) -> None:
    """Breaks: a fragment is taken by who follows the stream and refused by who catches up: two recordings."""
    prepared = Prepared("demo-01", 1, TWO_CHUNKS)
    await begin(jet, prepared)

    async def host() -> None:
        for fragment in prepared.fragments:
            await jet.publish(prepared.subject, fragment, {"Nats-Stream": "x" * MOST_BYTES})

    async with meeting(jet, prepared, moment, host):
        assert count(await ended(jet, prepared)) == 7


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

    worker = await connect(server.url, name="worker")
    async with meeting(worker, prepared, moment, host):
        found = await ended(jet, prepared)
    assert count(found) == 7
    assert found == await folded(worker, prepared)
    assert worker._conn.breaks == 0
    await worker.close()


@pytest.mark.parametrize("errand", ["a late double", "a dead letter"])
async def test_an_errand_of_one_session_holds_up_none(
    jet: Jet, monkeypatch: pytest.MonkeyPatch, errand: str
) -> None:
    """Breaks: a host that repeats itself, or sends rubbish, makes every other recording wait."""
    ours, other = Prepared("demo-01", 1, TWO_CHUNKS), Prepared("demo-02", 2, TWO_CHUNKS)
    may_go_on, begun = asyncio.Event(), asyncio.Event()
    await begin(jet, ours, other)
    await send(jet, ours, range(4))
    real_find, real_publish = refusals.find_fragment, jet.publish

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
            monkeypatch.setattr(refusals, "find_fragment", find)
            await send(jet, ours, [1, 1, 0])
        else:
            monkeypatch.setattr(jet, "publish", publish)
            await jet.publish(ours.subject, b"rubbish")
        await begun.wait()
        for prepared in (other, ours):
            await send(jet, prepared, range(0 if prepared is other else 4, 7))
            assert count(await ended(jet, prepared)) == 7
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
        found = await ended(jet, prepared)
        assert stage.ingest._recordings[prepared.session]._refusals.count == 0
        letters = await dead(jet, prepared, 5 if moment == FOLLOWED else 0)
    assert found == await folded(jet, prepared)
    assert count(found) == 7
    assert not any(event.equivocations for event in found)
    assert [letter.code for letter in letters] == ["fragment.host"] * (5 if moment == FOLLOWED else 0)


async def test_a_fragment_whose_place_was_declared_lost_stays_lost(jet: Jet) -> None:
    """Breaks: what comes late lands behind what followed it, or nobody learns that it came."""
    prepared = Prepared("demo-01", 1, [("data", 100), ("data", 200), ("part", 0), ("data", 300)])
    await begin(jet, prepared)
    async with record_stage(jet) as stage:
        await known(stage, prepared)
        await send(jet, prepared, [0, 1, 3, 2, 4, 5])  # the part says that its host has given up number 2
        found = await ended(jet, prepared)
        (letter,) = await dead(jet, prepared, 1)
    assert found == await folded(jet, prepared)
    assert count(found) == 5
    assert (letter.code, letter.seq) == ("fragment.late", 4)


async def test_after_a_chunk_that_was_dropped_the_next_one_is_kept_whole(jet: Jet) -> None:
    """Breaks: memory was short once, and from then on every byte of the session crosses the wire twice."""
    prepared = Prepared("demo-01", 1, [("data", 100_000)] * 7)
    await begin(jet, prepared)
    await send(jet, prepared)
    messages = [message async for message in (await Recordings.open(jet)).read_all(prepared.subject)]
    async with recording(jet, prepared) as one:
        chunk_memory = one._shared.chunk_memory
        limit, chunk_memory.record_limit = chunk_memory.record_limit, 150_000
        for arrival in one.look(messages):
            one.take(arrival)
            if chunk_memory.open_bytes == 0 and arrival.seq > messages[1].seq:
                chunk_memory.record_limit = limit
        kept = [work.fragments is not None for work in chunk_memory._work.values() if work.recorded.plain]
    assert kept[0] is False
    assert kept[1:] == [True] * len(kept[1:])
    assert len(kept) >= 3
