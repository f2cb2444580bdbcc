"""Runs the pure functions of single chunks in threads: bounded in number, bytes and time; fair to callers.

1. Chunks that wait are bounded in number, and bodies in bytes. More is refused at once: Busy (queue.full).
2. Callers take turns: one that sends a thousand chunks delays each other caller by one chunk.
3. A running call cannot be stopped. If it is late, its caller gets Unavailable (processor.timeout), and its
   slot stays taken until its thread returns. So late calls are at most as many as slots.
4. Codecs, ciphers and digests run without the interpreter's lock, so threads use all cores, and no chunk is
   copied to another process. They have low priority: recordings and other requests go first.
"""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

from schemas.config.logs import logger
from schemas.errors import Busy, Unavailable
from streams.scheduling.fair_slots import FairSlots
from streams.scheduling.threads import be_nice

log = logger("lucid.processor")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """The bounds of a pool."""

    workers: int = 10
    queue: int = 1000
    """Chunks that may wait for a worker."""
    memory_bytes: int = 256 << 20
    """Bytes of all bodies that are held at once. Work on them takes about three times as much."""
    timeout_s: float = 30.0
    """The longest wait for a worker, and again the longest run."""


@dataclass(slots=True)
class PoolCounts:
    """Counters since the start of the process."""

    done: int = 0
    failed: int = 0
    """Calls that raised an error."""
    refused: int = 0
    """Calls and bodies for which there was no room."""
    late: int = 0


class HeldBytes:
    """The bytes of one body that count against the pool's bound, until its block ends."""

    def __init__(self, pool: "ChunkPool") -> None:
        self._pool = pool
        self.count = 0

    def add(self, count: int) -> None:
        """Count so many bytes more. Raises Busy (queue.full)."""
        self._pool.take_bytes(count)
        self.count += count


class ChunkPool:
    """The threads, their queue and their bounds. One for each process; used from one event loop."""

    def __init__(self, limits: PoolLimits) -> None:
        self.limits, self.counts = limits, PoolCounts()
        self.held_bytes = 0
        self._threads = ThreadPoolExecutor(limits.workers, "lucid-processor", be_nice)
        self._slots = FairSlots(limits.workers)

    @property
    def waiting(self) -> int:
        """How many chunks wait for a worker."""
        return self._slots.waiting

    @property
    def running(self) -> int:
        """How many workers are busy, late calls included."""
        return self._slots.used

    @contextmanager
    def holding(self) -> Iterator[HeldBytes]:
        """Count the bytes of one body as they arrive, until the block ends."""
        held = HeldBytes(self)
        try:
            yield held
        finally:
            self.held_bytes -= held.count

    def take_bytes(self, count: int) -> None:
        """Called by HeldBytes. Raises Busy (queue.full)."""
        if self.held_bytes + count > self.limits.memory_bytes:
            raise self._full(f"the bodies of other requests fill {self.limits.memory_bytes >> 20} MiB")
        self.held_bytes += count

    async def run(self, caller: str, call: Callable[[], T]) -> T:
        """Call `call` in a thread at the caller's turn, and return its result or raise its error.

        Raises Busy (queue.full), Unavailable (processor.timeout).
        """
        if self._slots.waiting >= self.limits.queue:
            raise self._full(f"{self._slots.waiting} chunks wait already")
        try:
            async with asyncio.timeout(self.limits.timeout_s):
                await self._slots.take(caller)
        except TimeoutError:
            raise self._late("waited for a worker") from None
        running = self._start(caller, call)
        waiter = asyncio.wrap_future(running)
        waiter.add_done_callback(_seen)
        await asyncio.wait({waiter}, timeout=self.limits.timeout_s)
        if not waiter.done():
            raise self._late("was worked on")
        return waiter.result()

    def close(self) -> None:
        """Wait for the calls that run; no other call begins. Blocks."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _start(self, caller: str, call: Callable[[], T]) -> "Future[T]":
        """Start the call. Its slot is free when its thread returns, whether anybody still waits or not."""
        loop = asyncio.get_running_loop()

        def ended(done: "Future[T]") -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody needs the slot
                loop.call_soon_threadsafe(self._ended, caller, done)

        try:
            running = self._threads.submit(call)
        except BaseException:
            self._slots.give(caller)
            raise
        running.add_done_callback(ended)
        return running

    def _ended(self, caller: str, done: "Future[T]") -> None:
        self._slots.give(caller)
        failed = done.cancelled() or done.exception() is not None
        self.counts.failed += failed
        self.counts.done += not failed

    def _full(self, why: str) -> Busy:
        self.counts.refused += 1
        return Busy(f"the processor takes no more work now: {why}", code="queue.full", hint="try again later")

    def _late(self, what: str) -> Unavailable:
        self.counts.late += 1
        log.warning("chunk_late", seconds=self.limits.timeout_s, running=self.running, waiting=self.waiting)
        return Unavailable(
            f"the chunk {what} for {self.limits.timeout_s:g} s, which is the longest allowed",
            code="processor.timeout",
            hint="try again later, with a quicker codec, a lower level or a smaller chunk",
        )


def _seen(waiter: "asyncio.Future[T]") -> None:
    """Read the error of a call that nobody waits for: asyncio would report it as forgotten."""
    if not waiter.cancelled():
        waiter.exception()
