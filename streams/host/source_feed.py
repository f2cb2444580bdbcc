"""Feeds a source to a publisher: cut at the boundaries of its container, sent before it grows old.

1. Bytes are sent at latest HOLD_S after the first of them was read, at a boundary or not. Boxes that are read
   together are joined.
2. Bytes read before a pause are sent before it.
3. Bytes read are sent before the source's end, or its error, has an effect; the error is raised after that.
4. A part plays by itself. Another init segment in the same source begins one, and so does a NewPart.
5. A gap before a NewPart declares the time that its source lost.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable

from handlers.format.mp4 import BoxSplitter, Unit
from schemas.config.logs import logger
from schemas.ports.processes import NewPart
from streams.host.publisher import Publisher

log = logger("lucid.record")

HOLD_S = 1.0
"""A recorder that is killed loses at most so long of its source, and the fragments under way."""
ANOTHER_FILM = "another_film"
"""Reason of the part that another init segment begins."""


async def publish(
    source: AsyncIterator[bytes | NewPart], publisher: Publisher, encoder: str, reason: str = "start"
) -> None:
    """Send all that `source` gives; ticks while it is idle.

    Returns when the source ends; nothing is finished then. Raises the errors of the source and of the stream.
    """
    await publisher.begin_part(encoder, reason)
    feed = _Feed(aiter(source), publisher, encoder)
    try:
        while (block := await feed.next()) is not None:
            if isinstance(block, NewPart):
                await feed.begin_part(block)
            else:
                await feed.take(block)
        await feed.send_rest()
    finally:
        feed.close()


class _Feed:
    """One source: the bytes that were read and not sent, and how long they may still wait."""

    def __init__(self, source: AsyncIterator[bytes | NewPart], publisher: Publisher, encoder: str) -> None:
        self._source, self._publisher, self._encoder = source, publisher, encoder
        self._splitter = BoxSplitter(publisher.block_bytes)
        self._coming: asyncio.Future[bytes | NewPart | None] | None = None
        self._clock = asyncio.get_running_loop().time
        self._due_s: float | None = None
        """When the buffered bytes are to be sent; None: none can be."""

    async def next(self) -> bytes | NewPart | None:
        """The source's next block, None at its end. An error of the source is raised after all its blocks."""
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
        if units or self._due_s is None:  # all that is buffered now came with this block
            self._due_s = self._clock() + HOLD_S if self._splitter.holds else None
        await self._send(units)

    async def begin_part(self, new: NewPart) -> None:
        """Send all that belongs to the former part, then begin the new one."""
        await self.send_rest()
        self._splitter, self._due_s = BoxSplitter(self._publisher.block_bytes), None
        if new.lost_s:
            await self._publisher.lost(new.lost_s, new.reason)
        await self._publisher.begin_part(self._encoder, new.reason)
        log.info("part_begun", session=self._publisher.grant.session, reason=new.reason)

    async def send_rest(self) -> None:
        """Send all that is buffered."""
        await self._send(self._splitter.finish())

    def close(self) -> None:
        """Stop reading."""
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
