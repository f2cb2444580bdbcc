"""Passes messages to callbacks inside the parser's call, without a queue and a task of the driver.

1. Such a callback returns at once, and awaits nothing of its own connection.
2. Each message of its subscription is passed on here, also one that the driver's own parser found. So they
   keep the order of the connection.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from infra.jetstream import decode
from schemas.buffers import Bytes
from schemas.config.logs import logger

Take = Callable[[Msg], None]

log = logger("lucid.nats")


async def _call(take: Take, message: Msg) -> None:
    take(message)


def direct(take: Take) -> "partial[Any]":
    """Return `take` as a callback for the driver's `subscribe`."""
    return partial(_call, take)


def taker(client: Client, sid: int) -> Take | None:
    """Return the direct callback of a subscription; None: it has another one, or does not exist."""
    subscription: Subscription | None = client._subs.get(sid)
    if subscription is None or subscription._max_msgs:
        return None
    callback: Any = subscription._cb
    return callback.args[0] if isinstance(callback, partial) and callback.func is _call else None


def deliver(
    client: Client, take: Take, arguments: tuple[int, bytes, bytes], data: Bytes, block: bytes | None
) -> None:
    """Pass one message on. arguments: sid, subject, reply; block: its headers. Raises nothing."""
    sid, subject, reply = arguments
    client.stats["in_msgs"] += 1
    client.stats["in_bytes"] += len(data)
    try:
        take(
            client.msg_class(
                _client=client,
                subject=subject.decode(errors="replace"),
                reply=reply.decode(errors="replace"),
                data=data,  # type: ignore[arg-type]  # a landing is a bytearray
                headers=decode.headers(block) if block else None,
                _sid=sid,
            )
        )
    except Exception:
        log.exception("message_unread", subject=str(bytes(subject))[:200])
