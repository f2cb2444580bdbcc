"""What infra.jetstream promises, against a real server."""

import asyncio
from dataclasses import replace

import nats
import pytest
from nats.aio.msg import Msg

from infra.jetstream import ConsumerSpec, Jet, StreamSpec, connect
from infra.nats_server.server import NatsServer
from schemas.errors import Conflict, Denied, Misuse, NoSpace, NotFound, Rejected, Unavailable
from schemas.ports.messages import ConsumerInfo
from tests.support.machine.waiting import PATIENCE_S

LOG = StreamSpec("LOG", ("log.>",), 64 << 20)


async def test_a_published_message_reads_back_as_it_was_written(jet: Jet) -> None:
    """Breaks: bytes, subject or headers of an event differ from what its author wrote."""
    await jet.declare(LOG)
    body = bytes(range(256)) * 10
    ack = await jet.publish("log.a", body, {"traceparent": "00-ab"})
    message = await jet.get("LOG", ack.seq)
    assert message is not None
    assert (message.subject, message.data, message.seq) == ("log.a", body, ack.seq)
    assert message.headers == {"traceparent": "00-ab"}
    assert message == await jet.last("LOG", "log.a")
    assert message.stream_time_ns > 1_600_000_000 * 10**9


async def test_an_absent_message_is_none_and_not_an_error(jet: Jet) -> None:
    """Breaks: reading an erased key or an unknown session ends in a crash."""
    await jet.declare(LOG)
    assert await jet.get("LOG", 1) is None
    assert await jet.last("LOG", "log.a") is None
    assert await jet.batch("LOG", "log.a") == ([], False)
    assert await jet.get_many("LOG", [1, 2, 3, 9]) == {}
    assert [message async for message in jet.read_all("LOG", "log.>")] == []


async def test_the_same_message_id_is_stored_once(jet: Jet) -> None:
    """Breaks: a stage event that was resent after a lost ack is there twice."""
    await jet.declare(LOG)
    first = await jet.publish("log.a", b"1", msg_id="x")
    again = await jet.publish("log.a", b"1", msg_id="x")
    assert (first.duplicate, again.duplicate, again.seq) == (False, True, first.seq)


async def test_the_second_writer_at_one_place_is_refused(jet: Jet) -> None:
    """Breaks: two owners both append event n, and the log forks."""
    await jet.declare(LOG)
    outcomes = await asyncio.gather(
        *(jet.append("log.a", str(n).encode(), 0) for n in range(20)), return_exceptions=True
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, Conflict)]
    assert len(refused) == 19
    assert {error.code for error in refused} == {"append.conflict"}
    assert await jet.append("log.a", b"next", 1) == 2
    assert await jet.append("log.b", b"first of another subject", 0) == 3


async def test_a_missing_stream_is_an_outage(jet: Jet) -> None:
    """Breaks: a stage dead-letters every chunk because a stream is not there yet."""
    with pytest.raises(Unavailable) as error:
        await jet.publish("nowhere.at.all", b"")
    assert error.value.code == "nats.nobody"
    with pytest.raises(NotFound):
        await jet.info("NOWHERE")
    with pytest.raises(Unavailable):
        await jet.get("NOWHERE", 1)


async def test_a_full_stream_is_no_space(jet: Jet) -> None:
    """Breaks: a full disk looks like a network fault, and hosts resend for ever without a word."""
    await jet.declare(StreamSpec("TINY", ("tiny.>",), 64 << 10))
    for _ in range(6):
        await jet.publish("tiny.a", bytes(10_000))
    with pytest.raises(NoSpace) as error:
        await jet.publish("tiny.a", bytes(10_000))
    assert error.value.code == "stream.full"
    info = await jet.info("TINY")
    assert info.messages == 6
    await jet.purge("TINY", "tiny.a", up_to_seq=3)
    assert (await jet.publish("tiny.a", bytes(10_000))).seq == 7


async def test_a_stream_larger_than_what_is_promised_is_no_space(jet: Jet) -> None:
    """Breaks: the streams together may outgrow the disk, and the server wedges on it."""
    with pytest.raises(NoSpace):
        await jet.declare(StreamSpec("HUGE", ("huge",), 8 << 30))


async def test_a_message_over_the_servers_limit_is_rejected_before_it_is_sent(jet: Jet) -> None:
    """Breaks: one oversized message makes the server cut the connection of everybody."""
    await jet.declare(LOG)
    with pytest.raises(Rejected) as error:
        await jet.publish("log.a", bytes((1 << 20) + 1))
    assert error.value.code == "nats.too_large"
    await jet.publish("log.a", b"the connection still stands")


async def test_reading_everything_finds_every_message_in_order(jet: Jet) -> None:
    """Breaks: a fold over the log misses an event, and a session's state is wrong."""
    await jet.declare(LOG)
    for n in range(2_500):
        await jet.publish(f"log.{n % 2}", str(n).encode())
    even = [message async for message in jet.read_all("LOG", "log.0")]
    assert [int(message.data) for message in even] == list(range(0, 2_500, 2))
    rest = [message async for message in jet.read_all("LOG", "log.*", from_seq=2_001)]
    assert [message.seq for message in rest] == list(range(2_001, 2_501))
    first, more = await jet.batch("LOG", "log.1", max_messages=3)
    assert ([message.seq for message in first], more) == ([2, 4, 6], True)


async def test_a_batch_stops_at_its_bytes_and_says_that_there_is_more(jet: Jet) -> None:
    """Breaks: one read of a large session pulls all of it into memory."""
    await jet.declare(LOG)
    for _ in range(20):
        await jet.publish("log.a", bytes(100_000))
    messages, more = await jet.batch("LOG", "log.a", max_bytes=500_000)
    assert 4 <= len(messages) <= 6
    assert more
    whole = [message.seq async for message in jet.read_all("LOG", "log.a")]
    assert whole == list(range(1, 21))


async def test_messages_by_sequence_are_found_around_holes(jet: Jet) -> None:
    """Breaks: an erased neighbour hides the fragments of a chunk that are still there."""
    await jet.declare(LOG)
    for n in range(1, 101):
        await jet.publish("log.a", str(n).encode())
    for seq in (1, 2, 50, 100):
        assert await jet.delete("LOG", seq)
    assert not await jet.delete("LOG", 50)
    assert not await jet.delete("LOG", 5_000)
    for wanted in (list(range(1, 103)), [3, 5, 7, 50, 51, 99, 100], [2], [99, 3]):
        found = await jet.get_many("LOG", wanted)
        assert sorted(found) == sorted(set(wanted) - {1, 2, 50, 100, 101, 102})
        assert all(message.data == str(seq).encode() for seq, message in found.items())


async def test_large_messages_by_sequence_come_whole(jet: Jet) -> None:
    """Breaks: a chunk of 960 KiB fragments cannot be read again by sequence."""
    await jet.declare(LOG)
    for n in range(24):
        await jet.publish("log.a", bytes([n]) * (960 << 10))
    for wanted in (range(1, 25), range(1, 25, 2)):
        found = await jet.get_many("LOG", list(wanted))
        assert {seq: (message.data[0], len(message.data)) for seq, message in found.items()} == {
            seq: (seq - 1, 960 << 10) for seq in wanted
        }


async def test_a_deleted_message_is_gone_and_its_neighbours_stay(jet: Jet) -> None:
    """Breaks: letting a stored fragment go takes one that is still wanted."""
    await jet.declare(LOG)
    seqs = [(await jet.publish("log.a", bytes([n]))).seq for n in range(3)]
    assert await jet.delete("LOG", seqs[1])
    assert not await jet.delete("LOG", seqs[1])
    assert [message.seq async for message in jet.read_all("LOG", "log.a")] == [seqs[0], seqs[2]]


async def test_a_purge_takes_one_subject_up_to_a_sequence(jet: Jet) -> None:
    """Breaks: dropping what is stored of one session drops another's fragments."""
    await jet.declare(LOG)
    for n in range(10):
        await jet.publish(f"log.{n % 2}", b"")
    assert await jet.purge("LOG", "log.0", up_to_seq=5) == 3
    assert [message.seq async for message in jet.read_all("LOG", "log.*")] == [2, 4, 6, 7, 8, 9, 10]
    assert await jet.purge("LOG", "log.1") == 5


async def test_the_newest_messages_of_many_subjects_are_kept(jet: Jet) -> None:
    """Breaks: what one caller sent too much of takes the messages of another, or the newest ones."""
    await jet.declare(LOG)
    for n in range(10):
        await jet.publish(f"log.{n % 2}.{n}", b"")
    assert await jet.keep_newest("LOG", "log.0.*", 2) == 3
    assert [message.seq async for message in jet.read_all("LOG", "log.>")] == [2, 4, 6, 7, 8, 9, 10]
    assert await jet.keep_newest("LOG", "log.0.*", 2) == 0


async def test_declaring_twice_changes_nothing_and_differences_are_applied(jet: Jet) -> None:
    """Breaks: a restart with other limits keeps the old ones without a word."""
    spec = StreamSpec("PARTS", ("parts.>",), 1 << 20, partitions=16)
    assert await jet.declare(spec) == ["created"]
    assert await jet.declare(spec) == []
    wider = StreamSpec("PARTS", ("parts.>", "more.>"), 2 << 20, max_age_s=60, partitions=16)
    assert len(await jet.declare(wider)) == 4
    assert await jet.declare(wider) == []
    info = await jet.info("PARTS")
    assert (info.max_bytes, info.metadata["lucid.partitions"]) == (2 << 20, "16")


@pytest.mark.parametrize(
    "spec",
    [
        StreamSpec("PARTS", ("parts.>",), 1 << 20, partitions=32),
        StreamSpec("PARTS", ("other.>",), 1 << 20, partitions=16),
        StreamSpec("PARTS", ("parts.>",), 1 << 10, partitions=16),
    ],
    ids=["partitions", "lost subject", "limit below what is held"],
)
async def test_a_difference_that_would_lose_something_is_refused(jet: Jet, spec: StreamSpec) -> None:
    """Breaks: a changed constant silently moves or drops what was recorded."""
    await jet.declare(StreamSpec("PARTS", ("parts.>",), 1 << 20, partitions=16))
    await jet.publish("parts.a", bytes(5_000))
    with pytest.raises(Misuse) as error:
        await jet.declare(spec)
    assert error.value.code == "topology.drift"


async def test_a_consumer_keeps_its_place_when_it_is_declared_again(jet: Jet) -> None:
    """Breaks: every restart of a worker redelivers the whole stream."""
    await jet.declare(LOG)
    for n in range(4):
        await jet.publish("log.a", str(n).encode())
    spec = ConsumerSpec("worker", ("log.a",), start_seq=2)
    assert await jet.upsert_consumer("LOG", spec) == ["created"]
    reader = jet.pull("LOG", "worker", batch=1)
    message = await reader.get()
    assert message.seq == 2
    await reader.ack_sync(message, PATIENCE_S)
    await reader.close()
    assert await jet.upsert_consumer("LOG", spec) == []
    assert await jet.upsert_consumer("LOG", ConsumerSpec("worker", ("log.*",), ack_wait_s=5)) != []
    follower = jet.follow("LOG", ["log.a"])
    await anext(follower)
    (found,) = await jet.consumers("LOG")
    assert found.pending + found.unacknowledged == 2
    still = replace(found, pending=0, unacknowledged=0, redelivered=0, delivered=0)
    assert still == ConsumerInfo("worker", frozenset({"log.*"}), floor=2, is_read=False)
    await follower.close()
    await jet.delete_consumer("LOG", "worker")
    await jet.delete_consumer("LOG", "worker")
    assert await jet.consumers("LOG") == []


async def test_requests_are_answered_each_by_its_own_answer_and_silence_is_an_outage(jet: Jet) -> None:
    """Breaks: a command gets the answer to another one, or waits for ever when nobody serves."""
    service = await nats.connect(jet.url)

    async def answer(request: Msg) -> None:
        if request.data != b"unheard":
            await request.respond(request.data + b"!")

    await service.subscribe("ask", cb=answer)
    await service.flush()
    with pytest.raises(Unavailable):
        await jet.request("ask", b"unheard", timeout_s=0.2)
    answers = await asyncio.gather(*(jet.request("ask", str(n).encode()) for n in range(20)))
    assert answers == [b"%d!" % n for n in range(20)]
    await service.close()
    with pytest.raises(Unavailable):
        await jet.request("ask", b"late", timeout_s=0.5)


async def test_no_server_and_wrong_credentials_are_told_apart(server: NatsServer) -> None:
    """Breaks: a user with a mistyped password waits for a server that is there."""
    with pytest.raises(Unavailable) as absent:
        await connect("nats://user:secret@127.0.0.1:9", name="test", timeout_s=0.5)
    assert absent.value.code == "nats.unreachable"
    assert "secret" not in str(absent.value)
    with pytest.raises(Denied) as denied:
        await connect(f"nats://lucid:wrong@127.0.0.1:{server.port}", name="test", timeout_s=PATIENCE_S)
    assert denied.value.code == "nats.denied"


async def test_a_cancelled_publish_stays_cancelled(jet: Jet) -> None:
    """Breaks: a worker that is told to stop while it flushes never stops."""
    await jet.declare(LOG)
    tasks = [asyncio.create_task(jet.publish("log.a", bytes(900_000))) for _ in range(30)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), PATIENCE_S)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    await jet.publish("log.a", b"the connection still stands")
