"""Sends one request that every service answers, and hands on their answers."""

import asyncio
from collections.abc import Callable

from nats.aio.msg import Msg

from infra.jetstream.connection import Connection, status_of
from schemas.errors import LucidError


async def request_all(
    conn: Connection, subject: str, data: bytes, timeout_s: float, take: Callable[[bytes], bool]
) -> None:
    """The port Jet describes it. An answer without a service ends it at once."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def end(error: LucidError | None = None) -> None:
        if ended.done():
            return
        if error is None:
            ended.set_result(None)
        else:
            ended.set_exception(error)

    def answered(message: Msg | LucidError) -> None:
        if isinstance(message, LucidError):
            end(message)
        elif status_of(message) == "503" or take(message.data):
            end()

    token = conn.expect(answered)

    def late() -> None:
        conn.forget(token)
        end()

    loop.call_later(timeout_s, late)
    await conn.send(subject, data, reply=conn.reply_to(token))
    await ended
