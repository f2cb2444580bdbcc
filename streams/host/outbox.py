"""Sends the sealed fragments of one session, and sends them again until they are acknowledged.

1. Fragment k + WINDOW is never sent before k is acknowledged: the stage `record` holds few early ones.
2. A fragment that fails is sent again, the same bytes, until it is acknowledged or refused for good.
   A duplicate is harmless: `record` drops it.
3. A barrier is sent only when everything before it is acknowledged.
4. The outbox knows numbers, bytes and one way to publish; neither keys nor clocks of the recording.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from schemas.buffers import Bytes
from schemas.errors import LucidError
from schemas.format.fragment import WINDOW
from streams.scheduling.retry import SEND, retry

WINDOW_BYTES = 64 << 20

Publish = Callable[[Bytes, Mapping[str, str]], Awaitable[object]]


class Outbox:
    """Sends fragments in the order of `send`, at most WINDOW of them unacknowledged."""

    def __init__(self, publish: Publish, on_trouble: Callable[[LucidError], None] | None = None) -> None:
        self._publish = publish
        self._on_trouble = on_trouble
        self._sizes: dict[int, int] = {}
        """Number → bytes of each unacknowledged fragment, in order of number."""
        self._bytes = 0
        self._next = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._moved = asyncio.Event()
        self._refused: BaseException | None = None

    @property
    def acknowledged(self) -> int:
        """How many fragments the stream holds durably."""
        return self._next - len(self._sizes)

    @property
    def sending(self) -> int:
        """Bytes that are sent and not acknowledged."""
        return self._bytes

    async def send(self, data: Bytes, headers: Mapping[str, str], *, barrier: bool = False) -> None:
        """Return when the fragment is on its way. Raises the error that refused one for good."""
        await self._until(lambda: not self._sizes if barrier else self._fits(len(data)))
        number, self._next = self._next, self._next + 1
        self._sizes[number] = len(data)
        self._bytes += len(data)
        task = asyncio.create_task(self._deliver(number, data, headers))
        self._tasks.add(task)
        task.add_done_callback(self._delivered)
        if barrier:
            await self.drain()

    async def drain(self) -> None:
        """Return when everything is acknowledged. Raises the error that refused one for good."""
        await self._until(lambda: not self._sizes)

    async def close(self) -> None:
        """Give up the unacknowledged fragments."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _fits(self, size: int) -> bool:
        if not self._sizes:
            return True
        oldest = next(iter(self._sizes))
        return self._next - oldest < WINDOW and self._bytes + size <= WINDOW_BYTES

    async def _until(self, ready: Callable[[], bool]) -> None:
        while self._refused is None and not ready():
            self._moved.clear()
            await self._moved.wait()
        if self._refused is not None:
            raise self._refused

    async def _deliver(self, number: int, data: Bytes, headers: Mapping[str, str]) -> None:
        """Publish until it is acknowledged; the next `send` raises an error that cannot be retried."""
        await retry(lambda: self._publish(data, headers), SEND, on_error=self._on_trouble)
        self._bytes -= self._sizes.pop(number)

    def _delivered(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._refused = self._refused or error
        self._moved.set()
