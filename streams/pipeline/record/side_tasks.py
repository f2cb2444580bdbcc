"""Runs the side tasks of `record` one after the other: dead letters, and the look-up of late duplicates.

1. A side task never holds up a recording. When PLACES of them wait, the next one is dropped and logged.
2. After each side task the queue pauses as long as the task took.
3. A crash loses notes about refused fragments, never a fragment.
"""

import asyncio
from collections.abc import Awaitable, Callable

from schemas.config.logs import logger
from schemas.errors import LucidError

PLACES = 256

log = logger("lucid.record")


class SideTasks:
    """A bounded queue of small tasks. Used from one event loop only."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Callable[[], Awaitable[object]]] = asyncio.Queue(PLACES)
        self._dropped = 0

    async def run(self) -> None:
        """Run side tasks until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            task = await self._queue.get()
            began_s = clock()
            try:
                await task()
            except LucidError as error:
                log.warning("side_task_failed", error=error)
            except Exception:
                log.exception("side_task_failed")
            await asyncio.sleep(clock() - began_s)

    def add(self, task: Callable[[], Awaitable[object]]) -> None:
        """Run the task soon. It is dropped when the queue is full."""
        try:
            self._queue.put_nowait(task)
        except asyncio.QueueFull:
            self._dropped += 1
            if self._dropped.bit_count() == 1:  # 1, 2, 4, 8, ...: a flood does not fill the disk with log
                log.warning("side_tasks_dropped", count=self._dropped)
