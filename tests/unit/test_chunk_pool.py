"""The bounded pool of threads that works on single chunks."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from schemas.errors import Busy, Misuse, Unavailable
from streams.pipeline.chunk_pool import ChunkPool, PoolLimits

WAIT_S = 30.0


class Work:
    """Calls that return when they are told to, by name; the order in which they began."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self._ends: dict[str, threading.Event] = {}
        self._begun: dict[str, threading.Event] = {}

    def call(self, name: str) -> Callable[[], str]:
        end, begun = threading.Event(), threading.Event()
        self._ends[name], self._begun[name] = end, begun

        def run() -> str:
            self.began.append(name)
            begun.set()
            assert end.wait(WAIT_S)
            return name

        return run

    def end(self, name: str) -> None:
        self._ends[name].set()

    async def begun(self, name: str) -> None:
        assert await asyncio.to_thread(self._begun[name].wait, WAIT_S)


@asynccontextmanager
async def pool_of(**limits: float) -> AsyncIterator[ChunkPool]:
    pool = ChunkPool(PoolLimits(**limits))  # type: ignore[arg-type]
    try:
        yield pool
    finally:
        await asyncio.to_thread(pool.close)


async def settled(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            if is_so():
                return
            await asyncio.sleep(0.005)


async def test_a_result_and_an_error_come_back_as_they_are() -> None:
    """Breaks: a wrong chunk is answered as a bug of the service, or as no error."""

    def wrong() -> None:
        raise Misuse("no such level", code="test.level")

    async with pool_of(workers=1) as pool:
        assert await pool.run("a", lambda: 7) == 7
        with pytest.raises(Misuse, match="no such level"):
            await pool.run("a", wrong)
        assert await pool.run("a", lambda: 8) == 8
        await settled(lambda: pool.running == 0)
        assert (pool.counts.done, pool.counts.failed) == (2, 1)


async def test_a_chunk_beyond_the_queue_is_refused_and_the_queue_goes_on() -> None:
    """Breaks: work piles up in memory without a bound, or one refusal loses the work that was accepted."""
    work = Work()
    async with pool_of(workers=2, queue=3) as pool:
        names = ["run-1", "run-2", "wait-1", "wait-2", "wait-3"]
        tasks = [asyncio.create_task(pool.run("a", work.call(name))) for name in names]
        await settled(lambda: pool.waiting == 3)
        for _ in range(10):
            with pytest.raises(Busy, match=r"queue\.full"):
                await pool.run("a", work.call("refused"))
        for name in names:
            work.end(name)
        assert await asyncio.gather(*tasks) == names
        assert "refused" not in work.began
        assert pool.counts.refused == 10
        work.end("refused")
        assert await pool.run("a", lambda: "room again") == "room again"


async def test_bytes_are_bounded_beside_the_number_of_chunks() -> None:
    """Breaks: a few large bodies take all the memory of the machine."""
    async with pool_of(workers=1, memory_bytes=100) as pool:
        with pool.holding() as first:
            first.add(60)
            with pool.holding() as second:
                second.add(40)
                with pytest.raises(Busy, match=r"queue\.full"):
                    second.add(1)
            first.add(40)
        assert pool.held_bytes == 0
        with pool.holding() as again:
            again.add(100)
        assert pool.held_bytes == 0


async def test_a_late_chunk_is_answered_and_keeps_its_worker_until_it_ends() -> None:
    """Breaks: a client waits for ever, or each late chunk adds a thread until the machine is full."""
    work = Work()
    async with pool_of(workers=1, timeout_s=0.2) as pool:
        with pytest.raises(Unavailable, match=r"processor\.timeout"):
            await pool.run("a", work.call("late"))
        assert pool.running == 1
        with pytest.raises(Unavailable, match=r"processor\.timeout"):
            await pool.run("a", work.call("never begun"))
        assert work.began == ["late"]
        work.end("late")
        await settled(lambda: pool.running == 0)
        pool.limits = PoolLimits(workers=1, timeout_s=WAIT_S)
        assert await pool.run("a", lambda: "next") == "next"
        assert pool.counts.late == 2
        work.end("never begun")


async def test_a_client_that_goes_away_takes_no_place_in_the_queue() -> None:
    """Breaks: clients that disconnect fill the queue, and nobody else is served."""
    work = Work()
    async with pool_of(workers=1, queue=1) as pool:
        running = asyncio.create_task(pool.run("a", work.call("running")))
        await work.begun("running")
        for number in range(20):
            gone = asyncio.create_task(pool.run("b", work.call(f"gone-{number}")))
            await settled(lambda: pool.waiting == 1)
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
            assert pool.waiting == 0
        running.cancel()  # its thread goes on, and keeps the slot
        await asyncio.gather(running, return_exceptions=True)
        assert pool.running == 1
        work.end("running")
        await settled(lambda: pool.running == 0)
        assert work.began == ["running"]


async def test_a_caller_with_many_chunks_delays_another_by_one() -> None:
    """Breaks: one client sends a batch, and all others wait until it is done."""
    work = Work()
    async with pool_of(workers=1) as pool:
        tasks = [asyncio.create_task(pool.run("many", work.call("many-0")))]
        await work.begun("many-0")
        for number in range(1, 10):
            tasks.append(asyncio.create_task(pool.run("many", work.call(f"many-{number}"))))
        await settled(lambda: pool.waiting == 9)
        tasks.append(asyncio.create_task(pool.run("one", work.call("one"))))
        await settled(lambda: pool.waiting == 10)
        for name in (*(f"many-{number}" for number in range(10)), "one"):
            work.end(name)
        await asyncio.gather(*tasks)
        assert work.began.index("one") <= 2
