"""Feeds a source to a publisher: cut where its container allows, sent before it grows old.

1. What was read is sent at latest HOLD_S after its first byte came, whatever the container's boundaries say;
   boxes that are read at once are joined.
2. What was read before a pause is sent before it.
3. What was read is sent whatever the source says next: its end, or an error, which is raised after that.
4. Another film in the same source begins a part of its own: each part plays by itself.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable

from handlers.format.mp4 import BoxSplitter, Unit
from streams.host.publisher import Publisher

HOLD_S = 1.0
"""What a recorder that is killed may have read and not sent, beside what is under way."""
ANOTHER_FILM = "another_film"
"""Reason of the part that another init segment begins."""


async def publish(
    source: AsyncIterator[bytes], publisher: Publisher, encoder: str, reason: str = "start"
) -> None:
    """Send all that `source` gives; ticks while it is idle.

    Returns when the source ends; nothing is finished then. Raises what the source or the stream raise.
    """
    await publisher.begin_part(encoder, reason)
    feed = _Feed(aiter(source), publisher, encoder)
    try:
        while (block := await feed.next()) is not None:
            await feed.take(block)
        await feed.send_rest()
    finally:
        feed.close()


class _Feed:
    """One source: what was read of it and not sent, and how long that may still wait."""

    def __init__(self, source: AsyncIterator[bytes], publisher: Publisher, encoder: str) -> None:
        self._source, self._publisher, self._encoder = source, publisher, encoder
        self._splitter = BoxSplitter(publisher.block_bytes)
        self._coming: asyncio.Future[bytes | None] | None = None
        self._clock = asyncio.get_running_loop().time
        self._due_s: float | None = None
        """When the bytes that are held are to be sent; None: there are none that can be."""

    async def next(self) -> bytes | None:
        """The source's next block, None at its end. Raises what the source raises, after all it gave."""
        while True:
            if self._publisher.is_paused:
                await self._flush()
                await self._publisher.wait_while_paused()
            if self._coming is None:
                self._coming = asyncio.ensure_future(anext(self._source, None))
            left_s = None if self._due_s is None else self._due_s - self._clock()
            await self._publisher.idle(self._coming, most_s=left_s)
            if self._coming.done():
                coming, self._coming = self._coming, None
                if coming.exception() is not None:
                    await self.send_rest()
                return coming.result()
            if self._due_s is not None and self._clock() >= self._due_s:
                await self._flush()

    async def take(self, block: bytes) -> None:
        """Send the units that the block completes."""
        units = self._splitter.feed(block)
        if units or self._due_s is None:  # all that is held now came with this block
            self._due_s = self._clock() + HOLD_S if self._splitter.holds else None
        await self._send(units)

    async def send_rest(self) -> None:
        """Send all that is held."""
        await self._send(self._splitter.finish())

    def close(self) -> None:
        """Read no more."""
        if self._coming is not None:
            self._coming.cancel()

    async def _flush(self) -> None:
        self._due_s = None
        await self._send(self._splitter.flush())

    async def _send(self, units: Iterable[Unit]) -> None:
        for unit in units:
            if unit.begins_film:
                await self._publisher.begin_part(self._encoder, ANOTHER_FILM)
            await self._publisher.send(unit.data, unit.key_frame)
