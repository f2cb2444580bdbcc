"""Reads a durable consumer: hands out one message at a time, and acknowledges it when it is told to.

1. Requested and queued messages together are at most `batch`: nothing is fetched in advance of the slots.
2. If the consumer is gone, `upsert` makes it again. Messages may then come twice; none is lost.
3. `close` naks the queued messages, so that another reader has them at once.
"""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Awaitable, Callable

from nats.aio.msg import Msg

from infra.jetstream import decode
from infra.jetstream.connection import Connection
from infra.jetstream.pull_requests import PullCallbacks, PullRequests, PullTimes
from schemas.config.backoff import Backoff
from schemas.config.logs import logger
from schemas.errors import LucidError, Retryable, Unavailable
from schemas.ports.messages import Message

ACK_TIMEOUT_S = 5.0
RETRY = Backoff(0.2, 5.0)
"""Between two tries to read on; the first message ends the count."""
_log = logger(__name__)


class PullConsumer:
    """The port Consumer, over a durable consumer."""

    def __init__(
        self,
        conn: Connection,
        stream: str,
        consumer: str,
        *,
        batch: int,
        max_bytes: int = 0,
        times: PullTimes,
        upsert: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._conn, self._stream, self._consumer = conn, stream, consumer
        self._batch, self._max_bytes, self._upsert = batch, max_bytes, upsert
        self._queue: deque[Message] = deque()
        self._wake = asyncio.Event()
        self._lock = asyncio.Lock()
        self._lost = ""
        self._closed = False
        self._failures = 0
        self._pulls = PullRequests(
            conn, stream, PullCallbacks(self._take, self._lose, ended=self._wake.set), times
        )
        conn.on_break.add(self._broke)

    async def get(self) -> Message:
        async with self._lock:
            while True:
                if self._closed or self._conn.closed:
                    raise Unavailable(f"the reader of {self._consumer} is closed", code="pull.closed")
                if self._queue:
                    return self._queue.popleft()
                try:
                    await self._maintain()
                except Retryable as error:
                    await self._pause(error)
                    continue
                await self._wait()

    @property
    def waiting(self) -> tuple[Message, ...]:
        return tuple(self._queue)

    async def ack(self, message: Message) -> None:
        await self._conn.send(message.reply, b"+ACK")

    async def ack_sync(self, message: Message, timeout_s: float = ACK_TIMEOUT_S) -> None:
        await self._conn.request(message.reply, b"+ACK", timeout_s=timeout_s)

    async def nak(self, message: Message, delay_s: float = 0) -> None:
        body = f"-NAK {json.dumps({'delay': int(delay_s * 1e9)})}" if delay_s else "-NAK"
        await self._conn.send(message.reply, body.encode())

    async def in_progress(self, message: Message) -> None:
        await self._conn.send(message.reply, b"+WPI")

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._conn.on_break.discard(self._broke)
        self._wake.set()
        with contextlib.suppress(LucidError, Exception):
            await self._pulls.stop(drain=True)
        while self._queue:
            with contextlib.suppress(LucidError):
                await self.nak(self._queue.popleft())

    async def _maintain(self) -> None:
        """Repair the consumer and the subscription; ask for more when half of `batch` is used up."""
        await self._conn.wait_up()
        if self._lost and self._upsert is not None:
            _log.warning("consumer_lost", stream=self._stream, consumer=self._consumer, why=self._lost)
            await self._upsert()
        self._lost = ""
        await self._pulls.start()
        under_way = self._pulls.outstanding + len(self._queue)
        if under_way <= self._batch // 2:
            await self._pulls.ask(self._consumer, self._batch - under_way, self._max_bytes)

    async def _wait(self) -> None:
        """Wait for a message, a loss, or too long a silence; at least one heartbeat, as the loop may lag."""
        self._wake.clear()
        if self._queue or self._lost or self._closed or not self._pulls.open:
            return
        rest_s = max(self._pulls.patience_s - self._pulls.silent_for_s(), self._pulls.patience_s / 3)
        try:
            async with asyncio.timeout(rest_s):
                await self._wake.wait()
        except TimeoutError:
            if self._pulls.silent_for_s() >= self._pulls.patience_s:
                self._pulls.forget()
                self._lose("no heartbeat")

    async def _pause(self, error: Retryable) -> None:
        self._failures += 1
        _log.info("pull_retries", consumer=self._consumer, code=error.code)
        await asyncio.sleep(RETRY.delay_s(self._failures))

    def _take(self, message: Msg) -> None:
        self._failures = 0
        self._queue.append(decode.delivered(message)[0])
        self._wake.set()

    def _lose(self, reason: str) -> None:
        self._lost = reason
        self._wake.set()

    def _broke(self) -> None:
        self._pulls.forget()
        self._lose("disconnected")
