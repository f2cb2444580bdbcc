"""Gives each request over HTTP an id: the caller's `X-Request-Id`, or one of ours.

1. The answer names it, and so does a problem document. Every event of the request in the log has it, also
   those of its commands in other processes (streams/control/client.py).
2. A header that is ill-formed, too long or doubled counts as none: the log stays readable.
3. It is no secret and decides nothing. Two requests may have the same.
"""

import secrets

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.api.problem import REQUEST_ID, request_id
from schemas.config.logs import bind
from schemas.ports.telemetry import REQUEST

NAME = REQUEST_ID.lower().encode()


class RequestIds:
    """ASGI middleware, outside of all others."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).getlist(REQUEST_ID)
        named = (request_id(given[0]) if len(given) == 1 else "") or secrets.token_hex(16)
        # Neither is taken back: the framework answers a bug outside of all middleware, in the same task.
        REQUEST.set(named)
        bind(request_id=named)

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (NAME, named.encode())]}
            await send(message)

        await self._app(scope, receive, sent)
