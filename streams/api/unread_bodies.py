"""Ends a connection after an answer that came before the end of its request.

1. Such a body may have no end. The server would read and drop it for as long as the client sends.
2. The answer names `Connection: close`. Some more of the body is dropped first: a connection that is closed
   over unread bytes is reset, and a reset may take the answer from a client that still sends.
"""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LINGER_BYTES = 64 << 20
LINGER_S = 5.0
"""How much of the body is dropped after the answer, and for how long."""


class UnreadBodies:
    """ASGI middleware, outside of all that read bodies."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _has_body(scope):
            await self._app(scope, receive, send)
            return
        more = True

        async def received() -> Message:
            nonlocal more
            message = await receive()
            more = more and message.get("more_body", False)
            return message

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start" and more:
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            if message["type"] == "http.response.body" and more and not message.get("more_body"):
                await send({**message, "more_body": True})
                await _drop(received)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        await self._app(scope, received, sent)


async def _drop(received: Receive) -> None:
    dropped = 0
    try:
        async with asyncio.timeout(LINGER_S):
            while dropped < LINGER_BYTES:
                message = await received()
                dropped += len(message.get("body", b""))
                if not message.get("more_body"):
                    return
    except TimeoutError:
        return


def _has_body(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"
