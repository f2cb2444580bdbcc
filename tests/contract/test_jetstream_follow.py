"""What follow promises: every message from a sequence on, in order, once, whatever happens."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from nats.aio.msg import Msg

from infra.jetstream import (
    ConsumerSpec,
    Discontinuity,
    Follower,
    Jet,
    Message,
    StreamSpec,
    connect,
    pull_requests,
)
from infra.jetstream.merged_follower import MergedFollower
from infra.jetstream.pull_requests import PullCallbacks, PullRequests, PullTimes
from infra.jetstream.read_pace import LEAST_PULL_BYTES, POOL_BYTES, Pace, ReadBudget
from infra.nats_server.server import NatsServer
from schemas.errors import NotFound, Unavailable
from tests.support.machine.waiting import PATIENCE_S, until
from tests.support.servers.killing import kill

STREAM = StreamSpec("TAPE", ("tape.>",), 1 << 30)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stands still for seconds is not taken for a consumer that is gone."""
    monkeypatch.setattr(pull_requests, "SILENT_HEARTBEATS", 60)


async def take(follower: Follower, count: int) -> tuple[list[Message], list[Discontinuity]]:
    """The next `count` messages, and the discontinuities between them."""
    messages: list[Message] = []
    breaks: list[Discontinuity] = []
    async for item in follower:
        (messages if isinstance(item, Message) else breaks).append(item)  # type: ignore[arg-type]
        if len(messages) == count:
            break
    return messages, breaks


def follow_within(jet: Jet, most_bytes: int) -> Follower:
    """A follower that may hold and request so many bytes."""
    return Follower(jet._conn, "TAPE", ["tape.>"], 1, ReadBudget(most_bytes).share())


async def last_seq(jet: Jet) -> int:
    """The stream's last sequence, asked for until a server answers."""
    while True:
        try:
            await jet.wait_up()
            return (await jet.info("TAPE")).last_seq
        except Unavailable:
            await asyncio.sleep(0.05)


async def test_a_follower_sees_what_is_there_and_what_comes(jet: Jet, patient: None) -> None:
    """Breaks: record misses fragments that were sent before it started, or after."""
    await jet.declare(STREAM)
    for n in range(50):
        await jet.publish(f"tape.{n % 2}", str(n).encode())
    follower = jet.follow("TAPE", ["tape.>"], from_seq=11)
    before, _ = await take(follower, 40)
    assert [message.seq for message in before] == list(range(11, 51))
    assert before[-1].pending == 0
    waiting = asyncio.create_task(take(follower, 1))
    await asyncio.sleep(0.05)
    await jet.publish("tape.0", b"new", {"traceparent": "00"})
    (message,), breaks = await waiting
    assert (message.seq, message.data, message.headers) == (51, b"new", {"traceparent": "00"})
    assert breaks == []
    await follower.close()
    assert [item async for item in follower] == []


async def test_only_the_subjects_that_were_asked_for_come(jet: Jet) -> None:
    """Breaks: a worker takes fragments of partitions that another owns."""
    await jet.declare(STREAM)
    for n in range(30):
        await jet.publish(f"tape.{n % 3}", b"")
    follower = jet.follow("TAPE", ["tape.0", "tape.2"])
    messages, _ = await take(follower, 20)
    assert {message.subject for message in messages} == {"tape.0", "tape.2"}
    await follower.close()


async def test_large_messages_come_whole_and_within_the_bytes_asked_for(jet: Jet, patient: None) -> None:
    """Breaks: the server cuts the connection of a reader that asked for more than it can hold."""
    await jet.declare(STREAM)
    for n in range(60):
        await jet.publish("tape.a", bytes([n]) * (960 << 10))
    follower = follow_within(jet, 4 << 20)
    await take(follower, 1)
    await asyncio.sleep(0.3)
    assert sum(len(item.data) for item in follower._queue if isinstance(item, Message)) <= 4 << 20
    rest, breaks = await take(follower, 59)
    assert [(m.seq, m.data[0], len(m.data)) for m in rest] == [(n + 1, n, 960 << 10) for n in range(1, 60)]
    assert breaks == []
    await follower.close()


async def test_a_reader_that_is_held_off_its_writer_misses_nothing(jet: Jet, patient: None) -> None:
    """Breaks: a recording that comes faster than it may be followed stands still, or has holes."""
    await jet.declare(STREAM)
    follower = jet.follow("TAPE", ["tape.>"])
    follower._share.budget.pace = Pace(1 / 50)
    sent = [bytes([n]) * (1 << 19) for n in range(40)]

    async def write() -> None:
        for data in sent:
            await jet.publish("tape.0", data)

    writing = asyncio.create_task(write())
    messages, breaks = await take(follower, len(sent))
    await writing
    assert [message.data for message in messages] == sent
    assert breaks == []
    await follower.close()


async def test_bytes_under_way_are_counted_as_the_server_counts_them(jet: Jet) -> None:
    """Breaks: the count drifts, and the reader asks for too much, or pauses after each request."""
    await jet.declare(STREAM)
    await jet.upsert_consumer("TAPE", ConsumerSpec("counter", ("tape.>",)))
    got: list[object] = []
    over = asyncio.Event()
    pulls = PullRequests(jet._conn, "TAPE", PullCallbacks(got.append, print, over.set), PullTimes(3, 1))
    ends: list[tuple[str, int, int]] = []
    pulls._end = lambda *end: ends.append(end)  # type: ignore[method-assign]
    await pulls.start()
    for n in range(40):
        headers = {"traceparent": "00-" + "a" * n, "ce-id": "1"} if n % 2 else None
        await jet.publish(f"tape.{'s' * n}a", bytes(1000 * n), headers)
    await pulls.ask("counter", 100, 1 << 20)
    await asyncio.wait_for(over.wait(), PATIENCE_S)
    assert len(got) == 40
    assert ends == [("0", 60, pulls.outstanding_bytes)]
    await pulls.stop(drain=False)


async def test_a_batch_gives_everything_that_has_arrived(jet: Jet) -> None:
    """Breaks: record hashes fragments one by one instead of many in a thread."""
    await jet.declare(STREAM)
    for _ in range(100):
        await jet.publish("tape.a", b"")
    follower = jet.follow("TAPE", ["tape.>"])
    first = await follower.batch()
    await until(lambda: len(first) + len(follower._queue) == 100)
    rest = await follower.batch() if len(first) < 100 else []
    assert [item.seq for item in (*first, *rest) if isinstance(item, Message)] == list(range(1, 101))
    await follower.close()
    assert await follower.batch() == []


async def test_following_a_stream_that_is_not_there_says_so(jet: Jet) -> None:
    """Breaks: a wrong name looks like a stream in which nothing happens."""
    follower = jet.follow("NOWHERE", ["x"])
    with pytest.raises((NotFound, Unavailable)):
        await asyncio.wait_for(anext(follower), PATIENCE_S)
    await follower.close()


@pytest.mark.parametrize("size", [100, 200_000], ids=["small", "large"])
async def test_a_killed_server_makes_nothing_missing_and_nothing_double(
    server: NatsServer, jet: Jet, size: int, patient: None
) -> None:
    """Breaks: after a crash a recording has a hole, or its fragments are counted twice."""
    await jet.declare(STREAM)
    writer = await connect(server.url, name="writer", timeout_s=PATIENCE_S)
    follower = jet.follow("TAPE", ["tape.>"])
    acked: list[int] = []

    async def write() -> None:
        for _ in range(300):
            try:
                acked.append((await writer.publish("tape.a", bytes(size))).seq)
            except Unavailable:
                await writer.wait_up()

    async def strike() -> None:
        for _ in range(3):
            await asyncio.sleep(0.3)
            await until(lambda: follower._begun and not follower._broken)
            await kill(server)

    seen: list[int] = []
    breaks: list[Discontinuity] = []

    async def read() -> None:
        async for item in follower:
            if isinstance(item, Message):
                seen.append(item.seq)
            else:
                breaks.append(item)

    reading = asyncio.create_task(read())
    await asyncio.gather(write(), strike())
    last = await last_seq(jet)
    await until(lambda: seen and seen[-1] >= last)
    assert seen == list(range(1, last + 1))
    assert set(acked) <= set(seen)
    assert {item.reason for item in breaks} == {"disconnected"}
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await follower.close()
    await writer.close()


async def test_a_deleted_consumer_is_replaced_where_it_was(jet: Jet, patient: None) -> None:
    """Breaks: an operator who tidies up consumers stops a recording without a word."""
    await jet.declare(STREAM)
    await jet.publish("tape.a", b"")
    follower = jet.follow("TAPE", ["tape.>"])
    await take(follower, 1)
    reading = asyncio.create_task(take(follower, 1))
    await asyncio.sleep(0.1)
    await jet.delete_consumer("TAPE", follower._consumer)
    await jet.publish("tape.a", b"")
    messages, breaks = await asyncio.wait_for(reading, PATIENCE_S)
    assert [message.seq for message in messages] == [2]
    assert [item.next_seq for item in breaks] == [2]
    await follower.close()


async def test_a_lost_tail_is_noticed_although_no_number_jumps(jet: Jet, patient: None) -> None:
    """Breaks: the last fragments of a session are lost on the way and nobody asks for them again."""
    await jet.declare(STREAM)
    follower = jet.follow("TAPE", ["tape.>"])
    await jet.publish("tape.a", b"")
    await take(follower, 1)
    reading = asyncio.create_task(take(follower, 3))
    await asyncio.sleep(0.1)
    assert follower._pulls is not None
    follower._pulls._on = replace(follower._pulls._on, message=lambda message: None)
    for _ in range(3):
        await jet.publish("tape.a", b"")
    messages, breaks = await asyncio.wait_for(reading, PATIENCE_S)
    assert [message.seq for message in messages] == [2, 3, 4]
    assert [item.next_seq for item in breaks] == [2]
    await follower.close()


async def test_one_lost_message_is_asked_for_again(jet: Jet, patient: None) -> None:
    """Breaks: a fragment that the client dropped is declared missing for ever."""
    await jet.declare(STREAM)
    follower = jet.follow("TAPE", ["tape.>"])
    await jet.publish("tape.a", b"")
    await take(follower, 1)
    assert follower._pulls is not None
    deliver = follower._pulls._on.message
    skipped = iter([True])
    follower._pulls._on = replace(
        follower._pulls._on, message=lambda message: None if next(skipped, False) else deliver(message)
    )
    for _ in range(3):
        await jet.publish("tape.a", b"")
    messages, breaks = await asyncio.wait_for(take(follower, 3), PATIENCE_S)
    assert [message.seq for message in messages] == [2, 3, 4]
    assert len(breaks) == 1
    await follower.close()


async def test_a_reader_that_paused_longer_than_its_requests_live_goes_on(jet: Jet) -> None:
    """Breaks: back-pressure of half a minute ends a recording."""
    await jet.declare(STREAM)
    for _ in range(10):
        await jet.publish("tape.a", bytes(900_000))
    follower = follow_within(jet, 4 << 20)
    await take(follower, 1)
    await asyncio.sleep(7)
    messages, breaks = await asyncio.wait_for(take(follower, 9), PATIENCE_S)
    assert [message.seq for message in messages] == list(range(2, 11))
    assert breaks == []
    await follower.close()


async def test_a_closed_follower_leaves_no_consumer_behind(jet: Jet) -> None:
    """Breaks: every restart of a worker leaves one more consumer for the server to feed."""
    await jet.declare(STREAM)
    await jet.publish("tape.a", b"")
    follower = jet.follow("TAPE", ["tape.>"])
    await take(follower, 1)
    assert (await jet.info("TAPE")).consumers == 1
    await follower.close()
    names = json.loads(await jet.request("$JS.API.CONSUMER.NAMES.TAPE", b"{}"))
    assert names["total"] == 0


SHARDS = [StreamSpec(f"SHARD-{n}", (f"shard.{n}.>",), 1 << 28) for n in range(16)]


@pytest.fixture
async def of_sixteen(jet: Jet) -> MergedFollower:
    """A reader of sixteen streams."""
    for spec in SHARDS:
        await jet.declare(spec)
    return jet.follow_all((spec.name, spec.subjects, 1) for spec in SHARDS)


async def take_all(
    reader: MergedFollower, count: int
) -> tuple[dict[str, list[Message]], list[Discontinuity]]:
    """The next `count` messages by stream, and the discontinuities between them."""
    messages: dict[str, list[Message]] = {}
    breaks: list[Discontinuity] = []
    async with asyncio.timeout(PATIENCE_S):
        while sum(map(len, messages.values())) < count:
            for item in await reader.batch():
                if isinstance(item, Message):
                    messages.setdefault(item.stream, []).append(item)
                else:
                    breaks.append(item)
    return messages, breaks


async def test_each_of_several_streams_is_read_in_its_order(
    jet: Jet, of_sixteen: MergedFollower, patient: None
) -> None:
    """Breaks: a shard's fragments are lost, doubled or swapped beside those of another."""
    for n in range(320):
        await jet.publish(f"shard.{n % 16}.a", str(n).encode())
    messages, breaks = await take_all(of_sixteen, 320)
    assert set(messages) == {spec.name for spec in SHARDS}
    for number, spec in enumerate(SHARDS):
        assert [message.seq for message in messages[spec.name]] == list(range(1, 21))
        assert [int(message.data) % 16 for message in messages[spec.name]] == [number] * 20
    assert breaks == []
    waiting = asyncio.create_task(of_sixteen.batch())
    await asyncio.sleep(0)
    await of_sixteen.close()
    assert await asyncio.wait_for(waiting, PATIENCE_S) == []


async def test_a_stream_is_not_asked_before_its_consumer_is_there(
    jet: Jet, of_sixteen: MergedFollower, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a start reads one shard with a break, because another shard's messages came first."""
    request, others_were_read = jet._conn.request, asyncio.Event()

    async def the_last_one_is_late(subject: str, *args: Any, **kwargs: Any) -> Msg:
        if subject.startswith("$JS.API.CONSUMER.CREATE.SHARD-15."):
            await others_were_read.wait()
        return await request(subject, *args, **kwargs)

    monkeypatch.setattr(jet._conn, "request", the_last_one_is_late)
    for n in range(16):
        await jet.publish(f"shard.{n}.a", b"x")
    early, early_breaks = await take_all(of_sixteen, 15)
    others_were_read.set()
    late, late_breaks = await take_all(of_sixteen, 1)
    assert "SHARD-15" not in early
    assert list(late) == ["SHARD-15"]
    assert early_breaks == late_breaks == []
    await of_sixteen.close()


async def test_the_streams_of_one_reader_never_hold_more_than_its_budget_together(
    jet: Jet, of_sixteen: MergedFollower, patient: None
) -> None:
    """Breaks: sixteen shards with a backlog owe one connection so much that the server cuts it off."""
    for n in range(96):
        await jet.publish(f"shard.{n % 16}.a", bytes([n]) * (900 << 10))
    first = await of_sixteen.batch()
    budget, most = of_sixteen._followers[0]._share.budget, 0
    for _ in range(40):
        await asyncio.sleep(0.01)
        most = max(most, sum(share.held_bytes for share in budget.shares))
    assert most <= POOL_BYTES + 16 * LEAST_PULL_BYTES <= 32 << 20
    messages, breaks = await take_all(of_sixteen, 96 - len(first))
    assert breaks == []
    found = sorted(
        one.data[0] for part in (first, *messages.values()) for one in part if isinstance(one, Message)
    )
    assert found == list(range(96))
    await of_sixteen.close()


async def test_a_stream_that_cannot_be_read_stops_no_other(
    jet: Jet, of_sixteen: MergedFollower, patient: None
) -> None:
    """Breaks: one shard without a leader ends the recordings in all the others."""
    for n in range(16):
        await jet.publish(f"shard.{n}.a", b"before")
    await take_all(of_sixteen, 16)
    gone = of_sixteen._followers[3]
    await jet._conn.request("$JS.API.STREAM.DELETE.SHARD-3")
    await until(lambda: bool(gone._broken))
    await jet.publish("shard.4.a", b"beside")
    messages, _ = await take_all(of_sixteen, 1)
    assert [message.data for message in messages["SHARD-4"]] == [b"beside"]
    await jet.declare(SHARDS[3])
    gone.next_seq = 1
    await jet.publish("shard.3.a", b"back")
    messages, breaks = await take_all(of_sixteen, 1)
    assert [message.data for message in messages["SHARD-3"]] == [b"back"]
    assert [one.stream for one in breaks] == ["SHARD-3"]
    await of_sixteen.close()


async def test_an_absent_stream_among_several_is_the_callers_mistake(jet: Jet) -> None:
    """Breaks: a worker waits for ever for a shard that nobody declares."""
    await jet.declare(SHARDS[0])
    reader = jet.follow_all((spec.name, spec.subjects, 1) for spec in SHARDS[:2])
    with pytest.raises(NotFound):
        await asyncio.wait_for(reader.batch(), PATIENCE_S)
    await reader.close()


async def test_messages_without_data_fill_no_memory_while_the_reader_is_away(
    jet: Jet, of_sixteen: MergedFollower, patient: None
) -> None:
    """Breaks: a worker that waits for space is ended by one host that sends names and headers alone."""
    await jet.publish("shard.1.a", b"first")
    await take_all(of_sixteen, 1)
    name, headers = "shard.0." + "n" * 3500, {"Junk": "x" * (60 << 10)}
    for _ in range(12):
        await asyncio.gather(*(jet.publish(name, b"", headers) for _ in range(50)))
    budget, queue = of_sixteen._followers[0]._share.budget, of_sixteen._followers[0]._queue
    await asyncio.sleep(0.5)  # nobody takes what has arrived
    assert sum(share.held_bytes for share in budget.shares) <= POOL_BYTES + 16 * LEAST_PULL_BYTES
    assert sum(item.size for item in queue if isinstance(item, Message)) <= POOL_BYTES * 5 // 4
    messages, breaks = await take_all(of_sixteen, 600)
    assert len(messages["SHARD-0"]) == 600
    assert breaks == []
    await of_sixteen.close()
