"""Owns the least that a broker can cost: plain nats-py, used the simplest way that is still fast.

It is what `lucid bench` compares the pipeline with, and serves nothing else. Nothing is retried: a failure
ends the measurement.
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
"""Messages that are under way without an acknowledgement: as many as a publisher of ours has."""
FETCH_MESSAGES = 32
"""Of up to 960 KiB: more would come near the 64 MiB after which the server gives a reader up."""
FETCH_S = 1.0
FETCHES_AHEAD = 1
"""What waits here while earlier ones are worked on."""
ACK_S = 60.0


class BareNats:
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
        """Yield sequences and bytes in stream order, for ever; the next ones come while some are used."""
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
