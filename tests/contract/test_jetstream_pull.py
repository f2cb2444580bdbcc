"""What PullReader promises: each job until it is acked, whatever becomes of consumer and server."""

import asyncio
import contextlib
import json
import os
import signal
from collections import Counter

import pytest

from infra.jetstream import ConsumerSpec, Jet, PullConsumer, StreamSpec
from infra.jetstream.pull_requests import PullTimes
from infra.nats_server.server import NatsServer
from schemas.errors import Unavailable
from tests.support.machine.waiting import PATIENCE_S, until
from tests.support.servers.killing import kill

STREAM = StreamSpec("JOBS", ("jobs.>",), 256 << 20)
LONG_S = 10 * PATIENCE_S
"""An acknowledgement that does not lapse while something is waited for."""


async def reader_of(jet: Jet, batch: int = 4, max_bytes: int = 0, ack_wait_s: float = 2) -> PullConsumer:
    await jet.declare(STREAM)

    async def upsert() -> None:
        await jet.upsert_consumer("JOBS", ConsumerSpec("worker", ("jobs.>",), ack_wait_s=ack_wait_s))

    await upsert()
    return jet.pull("JOBS", "worker", batch, max_bytes, PullTimes(0.8, 0.3), upsert=upsert)


async def told(jet: Jet, *names: str) -> list[int]:
    """What the server says of the consumer."""
    info = json.loads(await jet.request("$JS.API.CONSUMER.INFO.JOBS.worker", b""))
    return [info[name] for name in names]


async def test_every_job_is_delivered_once_and_an_acked_one_never_again(jet: Jet) -> None:
    """Breaks: chunks are left out, or done twice for nothing."""
    reader = await reader_of(jet, ack_wait_s=LONG_S)
    for n in range(200):
        await jet.publish("jobs.a", str(n).encode())
    seen = []
    for _ in range(200):
        message = await reader.get()
        seen.append(int(message.data))
        await reader.ack_sync(message, PATIENCE_S)
    assert seen == list(range(200))
    assert await told(jet, "num_pending", "num_ack_pending", "num_redelivered") == [0, 0, 0]
    await reader.close()


async def test_several_tasks_share_one_reader_and_no_job_is_lost_between_them(jet: Jet) -> None:
    """Breaks: slots starve, or a job vanishes between two of them, and its session never seals."""
    reader = await reader_of(jet, batch=8, ack_wait_s=LONG_S)
    seen: Counter[int] = Counter()

    async def slot() -> None:
        while True:
            message = await reader.get()
            await asyncio.sleep(0.001)
            await reader.ack_sync(message, PATIENCE_S)
            seen[message.seq] += 1

    slots = [asyncio.create_task(slot()) for _ in range(8)]
    for _ in range(500):
        await jet.publish("jobs.a", b"")
    await until(lambda: len(seen) == 500)
    for task in slots:
        task.cancel()
    await asyncio.gather(*slots, return_exceptions=True)
    await reader.close()
    assert set(seen.values()) == {1}


async def test_a_job_arrives_after_many_expired_requests(jet: Jet) -> None:
    """Breaks: each request that ends empty leaks a slot, and an idle worker falls asleep for ever."""
    reader = await reader_of(jet, batch=2)
    waiting = asyncio.create_task(reader.get())
    await asyncio.sleep(4)
    ack = await jet.publish("jobs.a", b"")
    message = await asyncio.wait_for(waiting, PATIENCE_S)
    assert message.seq == ack.seq
    await reader.close()


async def test_what_an_expired_request_did_not_bring_is_asked_for_again(jet: Jet) -> None:
    """Breaks: requests that end half used make a reader ask for less and less."""
    reader = await reader_of(jet, batch=8, ack_wait_s=LONG_S)
    for _ in range(4):
        await jet.publish("jobs.a", b"")
    for _ in range(4):
        await reader.ack(await reader.get())
    waiting, pulls = asyncio.create_task(reader.get()), reader._pulls
    half_used = set(pulls.open)
    await until(lambda: not half_used & set(pulls.open) and pulls.outstanding == 8)
    assert sum(pulls.open.values()) == 8
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await reader.close()


async def test_a_request_that_ends_at_its_bytes_leaks_no_slot(jet: Jet) -> None:
    """Breaks: large jobs end requests early, and the reader stalls after a few."""
    reader = await reader_of(jet, batch=16, max_bytes=2 << 20, ack_wait_s=LONG_S)
    for _ in range(60):
        await jet.publish("jobs.a", bytes(900_000))
    async with asyncio.timeout(PATIENCE_S):
        for n in range(60):
            message = await reader.get()
            assert message.seq == n + 1
            await reader.ack(message)
    await reader.close()


async def test_a_job_that_was_handed_back_comes_again_after_its_delay(jet: Jet) -> None:
    """Breaks: a job that failed for a moment is lost, or comes back at once and burns the CPU."""
    reader = await reader_of(jet, ack_wait_s=LONG_S)
    await jet.publish("jobs.a", b"")
    loop = asyncio.get_running_loop()
    message = await reader.get()
    began_s = loop.time()
    await reader.nak(message, delay_s=0.5)
    again = await asyncio.wait_for(reader.get(), PATIENCE_S)
    assert loop.time() - began_s > 0.4
    assert (again.seq, again.deliveries) == (message.seq, 2)
    await reader.ack_sync(again, PATIENCE_S)
    await reader.close()


async def test_a_job_in_progress_is_not_given_to_another(jet: Jet) -> None:
    """Breaks: a chunk that takes long is begun again and again."""
    reader = await reader_of(jet, ack_wait_s=10)
    await jet.publish("jobs.a", b"")
    message = await reader.get()
    other = asyncio.create_task(reader.get())
    for _ in range(24):
        await asyncio.sleep(0.5)
        await reader.in_progress(message)
    assert not other.done()
    again = await asyncio.wait_for(other, PATIENCE_S)
    assert again.seq == message.seq
    await reader.close()


async def test_closing_hands_back_what_was_fetched_and_not_given_out(jet: Jet) -> None:
    """Breaks: stopping one worker delays its jobs by the whole ack_wait."""
    reader = await reader_of(jet, batch=8, ack_wait_s=LONG_S)
    for _ in range(8):
        await jet.publish("jobs.a", b"")
    first = await reader.get()
    await until(lambda: len(reader.waiting) == 7)
    await reader.close()
    await reader.close()
    other = await reader_of(jet, batch=8, ack_wait_s=LONG_S)
    async with asyncio.timeout(PATIENCE_S):
        rest = [(await other.get()).seq for _ in range(7)]
    assert sorted([first.seq, *rest]) == list(range(1, 9))
    await other.close()
    with pytest.raises(Unavailable) as error:
        await reader.get()
    assert error.value.code == "pull.closed"


async def test_closing_wakes_who_waits_for_a_job(jet: Jet) -> None:
    """Breaks: a worker that is told to stop waits for a job that never comes."""
    reader = await reader_of(jet)
    waiting = asyncio.create_task(reader.get())
    await asyncio.sleep(0.1)
    await reader.close()
    with pytest.raises(Unavailable):
        await asyncio.wait_for(waiting, PATIENCE_S)


@pytest.mark.parametrize("idle", [True, False], ids=["while a request is open", "between two requests"])
async def test_a_deleted_consumer_is_made_again(jet: Jet, idle: bool) -> None:
    """Breaks: an operator who removes a consumer stops a stage until its process is restarted."""
    reader = await reader_of(jet, batch=1)
    await jet.publish("jobs.a", b"")
    message = await reader.get()
    await reader.ack_sync(message, PATIENCE_S)
    waiting = None
    if idle:
        waiting = asyncio.create_task(reader.get())
        await asyncio.sleep(0.1)
    await jet.delete_consumer("JOBS", "worker")
    await jet.publish("jobs.a", b"")
    seen = set()
    async with asyncio.timeout(PATIENCE_S):
        while 2 not in seen:
            job = await (waiting or reader.get())
            waiting = None
            seen.add(job.seq)
            await reader.ack_sync(job, PATIENCE_S)
    await reader.close()


async def test_jobs_go_on_after_the_server_was_killed(server: NatsServer, jet: Jet) -> None:
    """Breaks: a crash of the server stops every stage, or loses a job that was not acked."""
    reader = await reader_of(jet)
    for _ in range(60):
        await jet.publish("jobs.a", b"")
    seen: set[int] = set()

    async def work() -> None:
        while True:
            message = await reader.get()
            seen.add(message.seq)
            await asyncio.sleep(0.01)
            with contextlib.suppress(Unavailable):  # the server may have taken it all the same
                await reader.ack_sync(message)

    worker = asyncio.create_task(work())
    await asyncio.sleep(0.2)
    for _ in range(2):
        await kill(server)
    await until(lambda: len(seen) == 60)
    owed = [60]
    async with asyncio.timeout(PATIENCE_S):
        while any(owed):
            await asyncio.sleep(0.1)
            with contextlib.suppress(Unavailable):
                owed = await told(jet, "num_pending", "num_ack_pending")
    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)
    await reader.close()


@pytest.mark.parametrize("size", [1_000, 900_000], ids=["small", "more than the socket takes"])
async def test_a_lost_connection_fails_what_is_under_way_at_once(
    server: NatsServer, jet: Jet, size: int, may_come_back: asyncio.Event
) -> None:
    """Breaks: each crash of the server stalls every publisher for its whole timeout."""
    await jet.declare(STREAM)
    os.kill(server.pid, signal.SIGSTOP)
    sent = (jet.publish("jobs.a", bytes(size), timeout_s=PATIENCE_S) for _ in range(30))
    under_way = [asyncio.create_task(publish) for publish in sent]
    await asyncio.sleep(0.1)
    os.kill(server.pid, signal.SIGKILL)
    outcomes = await asyncio.gather(*under_way, return_exceptions=True)
    assert [getattr(outcome, "code", outcome) for outcome in outcomes] == ["nats.disconnected"] * 30
    may_come_back.set()
    async with asyncio.timeout(PATIENCE_S):
        await jet.wait_up()
    await jet.publish("jobs.a", b"")
