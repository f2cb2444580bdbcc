"""Measures the least cost of a broker: our own connection in the simplest way that is still fast.

`lucid bench` compares the pipeline with it; nothing else uses it. It has what makes the pipeline's connection
fast: direct callbacks, and payloads that are not copied. Nothing is retried: a failure ends the measurement.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

from nats.aio.msg import Msg

from infra.jetstream import decode, errors
from infra.jetstream.connection import CONNECT_TIMEOUT_S, Connection
from infra.jetstream.pull_requests import PULL_TIMES, PullCallbacks, PullRequests
from schemas.buffers import Bytes
from schemas.errors import LucidError

WINDOW = 64
"""Unacknowledged messages under way: as many as our publisher allows."""
FETCH_MESSAGES = 16
FETCHED_MESSAGES = 32
"""Of up to 960 KiB that requests may still bring: the server drops a reader that has 64 MiB pending. As many
may wait while the messages of earlier requests are in use."""
ACK_S = 60.0
READER = "reader"


class PlainClient:
    """One plain connection. A context manager."""

    def __init__(self, url: str) -> None:
        self._conn = Connection(lambda: url)

    async def __aenter__(self) -> Self:
        await self._conn.open(timeout_s=CONNECT_TIMEOUT_S, inbox_prefix="_INBOX", name="lucid-bare")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._conn.close()

    async def make_stream(self, name: str, subject: str) -> None:
        await self._ask(f"STREAM.CREATE.{name}", {"name": name, "subjects": [subject], "storage": "file"})

    async def publish_all(self, subject: str, messages: AsyncIterator[Bytes]) -> None:
        """Return when every message is durable."""
        window, refused = asyncio.Semaphore(WINDOW), list[LucidError]()

        def acknowledged(answer: Msg | LucidError) -> None:
            if isinstance(answer, LucidError):
                refused.append(answer)
            elif "error" in (body := json.loads(answer.data)):
                refused.append(errors.from_answer(body["error"], f"publish to {subject}"))
            window.release()

        token = self._conn.expect(acknowledged)
        try:
            async for message in messages:
                await window.acquire()
                if refused:
                    raise refused[0]
                await self._conn.send(subject, message, reply=self._conn.reply_to(token))
            async with asyncio.timeout(ACK_S):
                for _ in range(WINDOW):
                    await window.acquire()
        finally:
            self._conn.forget(token)
        if refused:
            raise refused[0]

    async def read(self, stream: str, subject: str) -> AsyncIterator[list[tuple[int, Bytes]]]:
        """Yield sequences and bytes in stream order, for ever; fetch ahead of the caller."""
        config = {"name": READER, "ack_policy": "none", "filter_subject": subject, "mem_storage": True}
        await self._ask(f"CONSUMER.CREATE.{stream}.{READER}", {"stream_name": stream, "config": config})
        queue, lost, moved = deque[Msg](), list[str](), asyncio.Event()

        def take(message: Msg) -> None:
            queue.append(message)
            moved.set()

        def lose(why: str) -> None:
            lost.append(why)
            moved.set()

        pulls = PullRequests(self._conn, stream, PullCallbacks(take, lose, ended=moved.set), PULL_TIMES)
        await pulls.start()
        while True:
            while pulls.outstanding <= FETCHED_MESSAGES - FETCH_MESSAGES and len(queue) <= FETCHED_MESSAGES:
                await pulls.ask(READER, FETCH_MESSAGES)
            moved.clear()
            if not queue:
                await moved.wait()
            if lost:
                raise errors.disconnected(f"read {stream}: {lost[0]}")
            arrived = [decode.delivered(message)[0] for message in queue]
            queue.clear()
            yield [(message.seq, message.data) for message in arrived]

    async def _ask(self, action: str, body: dict[str, Any]) -> None:
        """Ask the JetStream API. Raises the error that it answers with."""
        answer = json.loads((await self._conn.request(f"$JS.API.{action}", json.dumps(body).encode())).data)
        if "error" in answer:
            raise errors.from_answer(answer["error"], action)
