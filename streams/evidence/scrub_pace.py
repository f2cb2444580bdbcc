"""Bounds the rate of the scrub, and lets it give way to the pipeline.

1. A file counts at least LEAST_BYTES: many small files cost the disk more than their bytes.
2. While a worker has a message that waits longer than LAG_S, the scrub waits for YIELD_S at most. Then it
   reads for LOOK_S, and so on: a message that waits for ever leaves it a tenth of the rate.
3. A worker that does not answer, or not in form, hinders nothing: it has no work of its own to disturb.
4. Both times of a message are the server's: no clock of ours is compared with it.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from schemas import subjects
from schemas.errors import LucidError
from schemas.events.tries import read_tries
from schemas.ports import Jet

LEAST_BYTES = 16 << 10
LAG_S = 2.0
LOOK_S = 1.0
YIELD_S = 9.0
"""The longest wait in one go. With LOOK_S it gives the least part of the rate: a tenth."""
ASK_S = 0.5
T = TypeVar("T")


@dataclass(slots=True)
class ScrubPace:
    """One for each scrub. bytes_per_s: the bound. Used by one task."""

    jet: Jet
    bytes_per_s: float
    waited_us: int = 0
    """The time that the scrub gave way, in all."""
    paced_us: int = 0
    """The time that the rate made it wait, in all."""
    cpu_us: int = 0
    """CPU time of the scrub's thread, in all."""
    behind_s: float = 0.0
    """The wait of the message that the scrub gives way to; 0: to none."""
    _due_s: float = field(default=0.0)
    _look_s: float = field(default=0.0)

    async def spend(self, size: int) -> None:
        """Return when so many bytes may be read."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._look_s:
            await self._give_way()
            self._look_s = loop.time() + LOOK_S
        now_s = loop.time()
        if self._due_s > now_s:
            await asyncio.sleep(self._due_s - now_s)
            self.paced_us += round((loop.time() - now_s) * 1e6)
        self._due_s = max(self._due_s, now_s) + max(size, LEAST_BYTES) / self.bytes_per_s

    def measured(self, work: Callable[[], T]) -> T:
        """In the scrub's thread: call `work`, and count its CPU time."""
        began_ns = time.thread_time_ns()
        try:
            return work()
        finally:
            self.cpu_us += (time.thread_time_ns() - began_ns) // 1000

    async def _give_way(self) -> None:
        """Return when nothing waits, or after YIELD_S."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + YIELD_S
        while True:
            lag = await lag_s(self.jet)
            self.behind_s = lag if lag > LAG_S else 0.0
            pause_s = min(LOOK_S, end_s - loop.time())
            if not self.behind_s or pause_s <= 0:
                return
            began_s = loop.time()
            await asyncio.sleep(pause_s)
            self.waited_us += round((loop.time() - began_s) * 1e6)


async def lag_s(jet: Jet) -> float:
    """How long the oldest message that a worker has in hand is in its stream; 0: there is none.

    Raises Unavailable: the stream cannot be asked.
    """
    answers = await asyncio.gather(*(_oldest_us(jet, p) for p in range(subjects.PARTITIONS)))
    known = [found for found in answers if found]
    if not known:
        return 0.0
    now_us = (await jet.info(subjects.CHUNKS)).now_us
    return (now_us - min(known)) / 1e6


async def _oldest_us(jet: Jet, p: int) -> int:
    try:
        tries = read_tries(await jet.request(subjects.tries(p), b"", ASK_S)).values()
        return min((one.published_us for one in tries if one.busy and one.published_us), default=0)
    except (LucidError, TimeoutError):
        return 0
