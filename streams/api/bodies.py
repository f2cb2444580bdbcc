"""Takes the JSON body of a request before its route sees it: within a bound of bytes, and at a least speed.

1. A larger body is 413, one that drips is 408, whether its length was declared or not.
2. Routes that stream their bodies bound them by themselves (streams/api/arriving.py).
"""

import re
from http import HTTPStatus

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.api.problem import problem_of
from schemas.errors import Misuse, TooLarge
from streams.api.arriving import arriving
from streams.api.problems import respond

JSON_MOST = 256 << 10
"""Bytes. The largest body of ours, a session with all its fields, has 20 kB."""
WITH_BODY = ("POST", "PUT", "PATCH", "DELETE")
STREAMED = re.compile(r"POST /(pipelines/[^/]+/chunks|chunks/([^/]+/process|process|batch))|PUT /chunks/.*")


class BoundedBodies:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in WITH_BODY or _is_streamed(scope):
            await self._app(scope, receive, send)
            return
        try:
            body = b"".join([piece async for piece in arriving(Request(scope, receive), JSON_MOST)])
        except TooLarge as error:
            await respond(problem_of(error))(scope, receive, send)
            return
        except HTTPException as error:
            status = HTTPStatus(error.status_code)
            problem = problem_of(Misuse(error.detail, code=f"http.{status.value}"), status.value)
            await respond(problem)(scope, receive, send)
            return
        taken: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replayed() -> Message:
            return taken.pop() if taken else await receive()

        await self._app(scope, replayed, send)


def _is_streamed(scope: Scope) -> bool:
    return STREAMED.fullmatch(f"{scope['method']} {scope['path']}") is not None
