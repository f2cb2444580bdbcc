"""Bounds the bodies of requests: a route that takes JSON never reads more than JSON_MOST bytes.

Uploads are streamed, and their route bounds them by itself.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.api.problem import problem_of
from schemas.errors import TooLarge
from streams.api.problems import respond

JSON_MOST = 1 << 20
STREAMED = ("/chunks", "/process", "/batch")
"""Ends of paths whose bodies are streamed or bounded by their own setting."""


class BoundedBodies:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _is_streamed(scope):
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > JSON_MOST:
            await respond(problem_of(_too_large()))(scope, receive, send)
            return
        taken = 0

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > JSON_MOST:
                raise _too_large()
            return message

        await self._app(scope, bounded, send)


def _is_streamed(scope: Scope) -> bool:
    path: str = scope["path"]
    return scope["method"] == "PUT" or path.endswith(STREAMED)


def _too_large() -> TooLarge:
    return TooLarge(f"a body of this route has at most {JSON_MOST} bytes", code="request.size")
