"""Holds the threads of one worker, and shares those that run the pure functions of chunks between hosts.

1. Hosts take turns at the threads that run pure functions (`run`).
2. A codec that may take longer than QUICK_S for one chunk runs in one thread of low priority, beside them.
3. Signature checks and disk writes have threads of their own: they never wait for a codec.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from schemas.events.session import SessionSettings
from schemas.format.chunk_header import Codec, codec_seconds
from streams.scheduling.fair_slots import FairSlots

THREADS = 2
SLOW_THREADS = 1
QUICK_S = 0.1
"""A codec that may take longer for one whole chunk counts as slow."""
NICE = 10
"""Of slow threads: beside busy threads of normal priority they get a tenth of a core."""

T = TypeVar("T")


def is_slow(settings: SessionSettings) -> bool:
    """Whether chunks of a session with these settings may take long to compress."""
    return codec_seconds(Codec(settings.codec), settings.level, settings.chunk_bytes) > QUICK_S


class Threads:
    """A context manager; on exit it waits for the calls that run."""

    def __init__(self) -> None:
        self.checks = ThreadPoolExecutor(THREADS, "lucid-check")
        self.disk = ThreadPoolExecutor(THREADS, "lucid-disk")
        self._quick = _Pool("lucid-work", THREADS)
        self._slow = _Pool("lucid-slow", SLOW_THREADS, be_nice)

    def __enter__(self) -> "Threads":
        return self

    def __exit__(self, *_: object) -> None:
        self.shut()

    def shut(self) -> None:
        """Wait for the calls that run; no other call begins."""
        for threads in (self.checks, self.disk, self._quick.threads, self._slow.threads):
            threads.shutdown(wait=True, cancel_futures=True)

    async def run(self, host: str, call: Callable[[], T], *, slow: bool = False) -> T:
        """Call `call` in a thread at the host's turn, and return its result."""
        pool = self._slow if slow else self._quick
        async with pool.slots.turn(host):
            return await asyncio.get_running_loop().run_in_executor(pool.threads, call)


class _Pool:
    """As many slots as threads: calls wait for their turn, never in the queue of the executor."""

    def __init__(self, name: str, threads: int, begin: Callable[[], None] | None = None) -> None:
        self.threads = ThreadPoolExecutor(threads, name, begin)
        self.slots = FairSlots(threads)


def be_nice() -> None:
    """Give the thread that calls this a low priority."""
    if sys.platform == "linux":  # other systems would change the whole process
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
