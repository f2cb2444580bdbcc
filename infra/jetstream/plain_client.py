"""Measures the least cost of a broker: plain nats-py in the simplest way that is still fast.

`lucid bench` compares the pipeline with it; nothing else uses it. Nothing is retried: a failure ends the
measurement.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self, cast

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, PubAck, StorageType, StreamConfig

WINDOW = 64
"""Unacknowledged messages under way: as many as our publisher allows."""
FETCH_MESSAGES = 32
"""Of up to 960 KiB: the server drops a reader that has 64 MiB pending."""
FETCH_S = 1.0
FETCHES_AHEAD = 1
"""Fetches that wait while the messages of earlier ones are in use."""
ACK_S = 60.0


class PlainClient:
    """One plain connection. A context manager."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: Client
        self._stream: JetStreamContext

    async def __aenter__(self) -> Self:
        self._client = await nats.connect(self._url)
        self._stream = self._client.jetstream(publish_async_max_pending=WINDOW)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._client.close()

    async def make_stream(self, name: str, subject: str) -> None:
        await self._stream.add_stream(StreamConfig(name=name, subjects=[subject], storage=StorageType.FILE))

    async def publish_all(self, subject: str, messages: AsyncIterator[bytearray]) -> None:
        """Return when every message is durable."""
        under_way: set[asyncio.Future[PubAck]] = set()
        async for message in messages:
            ack = await self._stream.publish_async(subject, cast(bytes, message))
            under_way.add(ack)
            if len(under_way) > WINDOW:
                acked = {ack for ack in under_way if ack.done()}
                under_way -= acked
                for ack in acked:
                    ack.result()
        async with asyncio.timeout(ACK_S):
            await asyncio.gather(*under_way)

    async def read(self, stream: str, subject: str) -> AsyncIterator[list[tuple[int, bytes]]]:
        """Yield sequences and bytes in stream order, for ever; fetch ahead of the caller."""
        config = ConsumerConfig(ack_policy=AckPolicy.NONE, mem_storage=True)
        subscription = await self._stream.pull_subscribe(
            subject, stream=stream, config=config, pending_bytes_limit=-1
        )
        queue: asyncio.Queue[list[Msg]] = asyncio.Queue(FETCHES_AHEAD)

        async def fetch_on() -> None:
            while True:
                with contextlib.suppress(nats.errors.TimeoutError, asyncio.TimeoutError):
                    await queue.put(await subscription.fetch(FETCH_MESSAGES, timeout=FETCH_S))

        fetching = asyncio.create_task(fetch_on())
        try:
            while True:
                messages = await queue.get()
                yield [(message.metadata.sequence.stream, message.data) for message in messages]
        finally:
            fetching.cancel()
