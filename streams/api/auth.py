"""Lets a request in: its token, its rate, and the permission that its route needs.

1. `Admission` (ASGI middleware) counts the request and verifies its token, before a byte of its body is read.
   Only the paths of OPEN go by without a token. No route can be forgotten: all others are closed.
2. `admitted` (a dependency of every route) permits the caller by the table of routes.
3. A session of somebody else looks like none to a caller that reaches only its own.
4. A command is sent with the caller's own token: the command service decides again.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Security
from fastapi.middleware.cors import CORSMiddleware
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.access.permissions import Reach, permit, permit_session
from handlers.access.routes import OPEN, ROUTES
from schemas.access import Caller
from schemas.api.problem import problem_of
from schemas.config.logs import bind
from schemas.errors import Denied, LucidError, Unauthenticated
from schemas.ports import Credential, Tokens
from schemas.subjects import SESSION_ID
from streams.api.parts import parts_of
from streams.api.problems import RETRY_AFTER_S, respond
from streams.api.rate_limit import RateLimits, TooMany, Window

CORS: dict[str, Any] = {
    "allow_methods": ("GET", "HEAD", "POST", "PUT", "DELETE"),
    "allow_headers": (
        *("Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "If-Range"),
        *("Last-Event-ID", "Range", "Upload-Offset", "X-Chunk-Key", "X-Reason", "X-Request-Id"),
        "traceparent",
    ),
    "expose_headers": (
        *("Accept-Ranges", "Content-Disposition", "Content-Range", "ETag", "Location", "Retry-After"),
        *("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "Upload-Offset", "WWW-Authenticate"),
        "X-Request-Id",
    ),
}
"""For pages of the origins in CORS_ORIGINS. No cookie counts here, so none is let through."""
CALLER, TOKEN = "caller", "token"
"""Names in the state of a request."""
SCHEME = "bearer"
BEARER = HTTPBearer(
    bearerFormat="JWT", auto_error=False, description="A token of the auth service, or of `lucid token`."
)


class Admission:
    """ASGI middleware: answers 401, 403, 429 or 503 itself, or hands the request on with its caller."""

    def __init__(self, app: ASGIApp, tokens: Tokens, limits: RateLimits) -> None:
        self._app, self._tokens, self._limits = app, tokens, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        window: Window | None = None
        try:
            address = (scope.get("client") or ("",))[0]
            window = self._limits.count_address(address)
            if scope["path"] not in OPEN or scope["method"] not in ("GET", "HEAD"):
                token = bearer(Headers(scope=scope).getlist("authorization"))
                caller = await self._tokens.caller(token, address)
                window = self._limits.count_caller(caller.subject) or window
                scope["state"] = {**scope.get("state", {}), CALLER: caller, TOKEN: token}
        except LucidError as error:
            await respond(problem_of(error), _refusal_headers(error, window))(scope, receive, send)
            return
        await self._app(scope, receive, _with_window(send, window))


def bearer(headers: list[str]) -> str:
    """The token of the Authorization headers. Raises Unauthenticated (access.missing, access.token)."""
    if not headers:
        raise _missing()
    scheme, _, token = headers[0].strip().partition(" ")
    if len(headers) > 1 or scheme.lower() != SCHEME or not token.strip():
        raise Unauthenticated(
            "the header Authorization holds no bearer token",
            code="access.token",
            hint="send one header Authorization: Bearer TOKEN",
        )
    return token.strip()


def _missing() -> Unauthenticated:
    return Unauthenticated(
        "this needs a token, and there is none",
        code="access.missing",
        hint="send the header Authorization: Bearer TOKEN",
    )


async def admitted(
    request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)] = None
) -> Caller:
    """Return the caller if the route is permitted.

    Raises Denied (access.role, access.route), NotFound (session.absent): another person's session, or none.
    """
    caller = caller_of(request)
    path = getattr(request.scope.get("route"), "path_format", "")
    permission = ROUTES.get(f"{request.method} {path}")
    if permission is None:
        raise Denied(f"{request.method} {path} is permitted to nobody", code="access.route")
    name = request.path_params.get("session_id")
    if name is not None and SESSION_ID.fullmatch(str(name)):
        bind(session=str(name))
    if permit(caller, permission) is Reach.OWN and name is not None:
        permit_session(caller, permission, await parts_of(request).log.load(str(name)))
    return caller


def allow_origins(app: FastAPI, origins: Sequence[str]) -> None:
    """Let pages of these web origins call the application; none: no page of another origin may."""
    if origins:
        app.add_middleware(CORSMiddleware, allow_origins=origins, **CORS)


ADMITTED = [Depends(admitted)]
"""For every router that is included."""


def caller_of(request: Request) -> Caller:
    """The caller of a request that was let in. Raises Unauthenticated (access.missing)."""
    caller: Caller | None = getattr(request.state, CALLER, None)
    if caller is None:  # a path of OPEN that led to another route
        raise _missing()
    return caller


def credential_of(request: Request) -> Credential:
    """The caller's own token, for the commands of this request."""
    token: str = getattr(request.state, TOKEN)
    return lambda *_: token


def _refusal_headers(error: LucidError, window: Window | None) -> dict[str, str]:
    headers = window.headers() if window else {}
    if isinstance(error, TooMany):
        headers |= error.window.headers()
    if not isinstance(error, Denied):
        headers["Retry-After"] = str(getattr(error, "retry_after_s", RETRY_AFTER_S))
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer" if error.code == "access.missing" else INVALID
    return headers


INVALID = 'Bearer error="invalid_token"'


def _with_window(send: Send, window: Window | None) -> Send:
    """Adds the state of the limit to the answer."""
    if window is None:
        return send

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(window.headers())
        await send(message)

    return sending
