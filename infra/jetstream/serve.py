"""Owns answering requests: one task a request, a bounded number at a time."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from nats.aio.msg import Msg

from infra.jetstream.connection import Connection
from schemas.errors import LucidError
from schemas.jetstream import Message

AT_ONCE = 64

_log = logging.getLogger(__name__)


class Service:
    """What answers one subject. `close` lets requests that are under way end first."""

    def __init__(self, conn: Connection, handler: Callable[[Message], Awaitable[bytes]]) -> None:
        self._conn, self._handler = conn, handler
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._unsubscribe: Callable[[], Awaitable[None]] | None = None

    async def start(self, subject: str, queue: str) -> None:
        subscription = await self._conn.subscribe(subject, self._take, queue)
        self._unsubscribe = subscription.drain

    async def close(self) -> None:
        unsubscribe, self._unsubscribe = self._unsubscribe, None
        if unsubscribe is not None:
            with contextlib.suppress(Exception):  # a connection that is gone has nothing to unsubscribe
                await unsubscribe()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _take(self, message: Msg) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, message: Msg) -> None:
        async with self._slots:
            request = Message(message.subject, message.data, message.headers or {}, reply=message.reply)
            try:
                answer = await self._handler(request)
                if message.reply:
                    await self._conn.send(message.reply, answer)
            except LucidError as error:
                _log.warning("request_unanswered subject=%s code=%s", message.subject, error.code)
            except Exception:
                _log.exception("request_failed subject=%s", message.subject)


async def serve(
    conn: Connection, subject: str, queue: str, handler: Callable[[Message], Awaitable[bytes]]
) -> Service:
    """Begin to answer `subject`; those of one `queue` share the requests."""
    service = Service(conn, handler)
    await service.start(subject, queue)
    return service
