"""Makes the span of each request over HTTP, child of the caller's traceparent (W3C Trace Context).

1. The span is CURRENT inside: commands and uploads of the request name it.
2. Its name has the template of the route, never the path. Polls of health and metrics have no span.
3. It lasts until the last byte of the answer: that of a download tells how long the caller took.
4. As the conventions want it, an answer from 500 on is an error, one below is none.
"""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.access.routes import OPEN
from schemas.errors import LucidError
from schemas.ports import Jet
from schemas.ports.telemetry import REQUEST, Fact
from schemas.subjects import SESSION_ID
from schemas.telemetry.span_facts import REQUEST_ID, SESSION
from streams.api.measured import BUG, METHODS, PROBLEM, UNKNOWN

BUGS_FROM = 500


class Traced:
    """ASGI middleware, inside of `Measured`."""

    def __init__(self, app: ASGIApp, jet: Jet) -> None:
        self._app, self._tracer = app, jet.tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._tracer.on or scope["path"] in OPEN:
            await self._app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in METHODS else UNKNOWN
        above = Headers(scope=scope).get("traceparent", "") if self._tracer.propagates else ""
        with self._tracer.span(f"{method} {UNKNOWN}", "server", above) as span:

            async def sent(message: Message) -> None:
                if message["type"] == "http.response.start" and span.recording:
                    route = getattr(scope.get("route"), "path_format", "") or UNKNOWN
                    span.rename(f"{method} {route}")
                    span.set({"http.request.method": method, "http.route": route})
                    span.set({"http.response.status_code": message["status"], "url.scheme": scope["scheme"]})
                    span.set({**_facts(scope), REQUEST_ID: REQUEST.get()})
                    if message["status"] >= BUGS_FROM:
                        span.fail(LucidError("", code=scope.get(PROBLEM, BUG)))
                await send(message)

            await self._app(scope, receive, sent)


def _facts(scope: Scope) -> dict[str, Fact]:
    """The session that a route names. A path of no route may hold anything: it is no fact."""
    named = scope.get("path_params", {}).get("session_id", "")
    return {SESSION: named, "url.path": scope["path"]} if SESSION_ID.fullmatch(str(named)) else {}
