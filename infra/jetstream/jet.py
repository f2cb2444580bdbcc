"""Implements the port Jet over one connection; the port documents each method.

Only back-pressure is retried here: the server stored nothing then. All other retries are the callers'.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import nats.errors
from nats.aio.msg import Msg

from infra.jetstream import declare, decode, errors, follower, limits, merged_follower, reads, requests
from infra.jetstream.client import Where
from infra.jetstream.connection import CONNECT_TIMEOUT_S, REQUEST_TIMEOUT_S, Connection
from infra.jetstream.consumer import PullConsumer
from infra.jetstream.pull_requests import PULL_TIMES, PullTimes
from schemas.buffers import Bytes
from schemas.config.backoff import Backoff
from schemas.errors import Unavailable
from schemas.ports.access import Credential, no_token
from schemas.ports.messages import (
    MSG_ID,
    Account,
    ConsumerInfo,
    ConsumerSpec,
    Message,
    PubAck,
    StreamInfo,
    StreamSpec,
)
from schemas.ports.telemetry import NO_TRACES, Tracer

EXPECTED = "Nats-Expected-Last-Subject-Sequence"
BUSY = Backoff(0.05, 1.0, jitter=0.5)


async def connect(
    where: str | Where,
    *,
    name: str,
    inbox_prefix: str = "_INBOX",
    timeout_s: float = CONNECT_TIMEOUT_S,
    credential: Credential = no_token,
) -> "Jet":
    """Return a connection that stands, to a server with JetStream.

    where: URLs (schemas.config.nats_url), or a function that returns them before every try.
    Raises Unavailable, Denied (both nats.*), Misuse (config.nats_url, nats.max_payload).
    """
    urls = where
    conn = Connection((lambda: urls) if isinstance(urls, str) else urls)
    await conn.open(timeout_s=timeout_s, inbox_prefix=inbox_prefix, name=name)
    try:
        await limits.check(conn)
    except BaseException:
        await conn.close()
        raise
    return Jet(conn, credential)


class Jet:
    """The port Jet."""

    def __init__(self, conn: Connection, credential: Credential = no_token) -> None:
        self._conn = conn
        self.credential: Credential = credential
        self.tracer: Tracer = NO_TRACES

    @property
    def url(self) -> str:
        return self._conn.url

    @property
    def max_payload(self) -> int:
        return self._conn.nc.max_payload

    async def account(self) -> Account:
        return await limits.account(self._conn)

    async def wait_up(self) -> None:
        """Return when the connection stands. Raises Unavailable: it was closed for good."""
        await self._conn.wait_up()

    async def publish(
        self,
        subject: str,
        data: Bytes,
        headers: Mapping[str, str] | None = None,
        msg_id: str | None = None,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> PubAck:
        """A full disk shows only after `timeout_s`."""
        wanted = dict(headers or {})
        if msg_id is not None:
            wanted[MSG_ID] = msg_id
        loop = asyncio.get_running_loop()
        deadline_s, failures = loop.time() + timeout_s, 0
        while True:
            try:
                return await self._publish_once(subject, data, wanted, max(deadline_s - loop.time(), 0.01))
            except Unavailable as error:
                if error.code == "nats.timeout":
                    await declare.check_disk(self._conn, subject)
                failures += 1
                pause_s = BUSY.delay_s(failures)
                if error.code != "stream.busy" or loop.time() + pause_s >= deadline_s:
                    raise
            await asyncio.sleep(pause_s)

    async def append(
        self, subject: str, data: Bytes, expected_seq: int, headers: Mapping[str, str] | None = None
    ) -> int:
        ack = await self.publish(subject, data, {**(headers or {}), EXPECTED: str(expected_seq)})
        return ack.seq

    async def get(self, stream: str, seq: int) -> Message | None:
        return await reads.get(self._conn, stream, seq)

    async def last(self, stream: str, subject: str) -> Message | None:
        return await reads.last(self._conn, stream, subject)

    async def batch(
        self,
        stream: str,
        subject: str,
        from_seq: int = 1,
        max_messages: int = reads.BATCH_MESSAGES,
        max_bytes: int = reads.BATCH_BYTES,
    ) -> tuple[list[Message], bool]:
        return await reads.batch(self._conn, stream, subject, from_seq, max_messages, max_bytes)

    async def get_many(self, stream: str, seqs: Sequence[int]) -> dict[int, Message]:
        return await reads.get_many(self._conn, stream, seqs)

    async def lasts(self, stream: str, subjects: Sequence[str], known_to: int) -> dict[str, Message]:
        return await reads.lasts(self._conn, stream, subjects, known_to)

    def read_all(self, stream: str, subject: str, from_seq: int = 1) -> AsyncIterator[Message]:
        return reads.read_all(self._conn, stream, subject, from_seq)

    async def declare(self, spec: StreamSpec) -> list[str]:
        return await declare.declare(self._conn, spec)

    async def upsert_consumer(self, stream: str, spec: ConsumerSpec) -> list[str]:
        return await declare.upsert_consumer(self._conn, stream, spec)

    async def delete_consumer(self, stream: str, name: str) -> None:
        await declare.api(self._conn, f"CONSUMER.DELETE.{stream}.{name}", may_be_absent=True)

    async def consumers(self, stream: str) -> list[ConsumerInfo]:
        return await declare.consumers(self._conn, stream)

    def pull(
        self,
        stream: str,
        consumer: str,
        batch: int,
        max_bytes: int = 0,
        times: PullTimes = PULL_TIMES,
        upsert: Callable[[], Awaitable[object]] | None = None,
    ) -> PullConsumer:
        return PullConsumer(
            self._conn,
            stream,
            consumer,
            batch=batch,
            max_bytes=max_bytes,
            times=times,
            upsert=upsert,
        )

    def follow(self, stream: str, filters: Sequence[str], from_seq: int = 1) -> follower.Follower:
        return follower.Follower(self._conn, stream, filters, from_seq)

    def follow_all(
        self, sources: Iterable[merged_follower.Source], share: float = 1.0
    ) -> merged_follower.MergedFollower:
        return merged_follower.MergedFollower(self._conn, sources, share)

    async def delete(self, stream: str, seq: int) -> bool:
        return await declare.delete_message(self._conn, stream, seq)

    async def purge(self, stream: str, subject: str, up_to_seq: int | None = None) -> int:
        body: dict[str, Any] = {"filter": subject}
        if up_to_seq is not None:
            body["seq"] = up_to_seq + 1
        return await self._purge(stream, body)

    async def keep_newest(self, stream: str, subject: str, count: int) -> int:
        return await self._purge(stream, {"filter": subject, "keep": count})

    async def _purge(self, stream: str, body: dict[str, Any]) -> int:
        answer = await declare.api(self._conn, f"STREAM.PURGE.{stream}", body)
        assert answer is not None
        return int(answer["purged"])

    async def info(self, stream: str) -> StreamInfo:
        answer = await declare.api(self._conn, f"STREAM.INFO.{stream}")
        assert answer is not None
        state, config = answer["state"], answer["config"]
        return StreamInfo(
            name=stream,
            messages=int(state["messages"]),
            bytes=int(state["bytes"]),
            first_seq=int(state["first_seq"]),
            last_seq=int(state["last_seq"]),
            max_bytes=int(config["max_bytes"]),
            consumers=int(state.get("consumer_count", 0)),
            subjects=int(state.get("num_subjects", 0)),
            metadata=config.get("metadata") or {},
            now_us=decode.time_ns(answer["ts"]) // 1000 if "ts" in answer else 0,
        )

    async def subject_counts(self, stream: str, subject: str) -> dict[str, int]:
        counts: dict[str, int] = {}
        offset = 0  # counts rows, not names: two names of odd bytes may look the same
        while True:
            body = {"subjects_filter": subject, "offset": offset}
            answer = await declare.api(self._conn, f"STREAM.INFO.{stream}", body)
            assert answer is not None
            page = answer["state"].get("subjects") or {}
            counts.update({name: int(count) for name, count in page.items()})
            offset += len(page)
            if not page or offset >= int(answer.get("total", 0)):
                return counts

    async def request(
        self,
        subject: str,
        data: bytes,
        timeout_s: float = REQUEST_TIMEOUT_S,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        return (await self._conn.request(subject, data, timeout_s=timeout_s, headers=headers)).data

    async def request_all(
        self, subject: str, data: bytes, timeout_s: float, take: Callable[[bytes], bool]
    ) -> None:
        await requests.request_all(self._conn, subject, data, timeout_s, take)

    async def tell(self, subject: str, data: bytes) -> None:
        await self._conn.send(subject, data)

    @asynccontextmanager
    async def hear(self, subject: str, take: Callable[[bytes], None]) -> AsyncIterator[None]:
        subscription = await self._conn.subscribe(subject, lambda message: take(message.data))
        try:
            yield
        finally:
            with suppress(nats.errors.Error):
                await subscription.unsubscribe()

    @asynccontextmanager
    async def serve(self, subject: str, answer: Callable[[], bytes]) -> AsyncIterator[None]:
        replies: set[asyncio.Task[None]] = set()

        async def reply(to: str) -> None:
            with suppress(Unavailable):  # the client asks again
                await self._conn.send(to, answer())

        def take(request: Msg) -> None:
            if request.reply:
                replying = asyncio.get_running_loop().create_task(reply(request.reply))
                replies.add(replying)
                replying.add_done_callback(replies.discard)

        subscription = await self._conn.subscribe(subject, take)
        try:
            yield
        finally:
            with suppress(nats.errors.Error):
                await subscription.unsubscribe()

    async def close(self) -> None:
        """Close the connection; requests under way fail as Unavailable."""
        await self._conn.close()

    async def _publish_once(
        self, subject: str, data: Bytes, headers: Mapping[str, str], timeout_s: float
    ) -> PubAck:
        answer = await self._conn.request(subject, data, headers=headers, timeout_s=timeout_s)
        body = json.loads(answer.data)
        if "error" in body:
            raise errors.from_answer(body["error"], f"publish to {subject}")
        return PubAck(int(body["seq"]), bool(body.get("duplicate")))
