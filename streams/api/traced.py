"""Makes the span of each request over HTTP, child of the caller's traceparent (W3C Trace Context).

1. The span is CURRENT inside: commands and uploads of the request name it.
2. Its name has the template of the route, never the path. Polls of health and metrics have no span.
"""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.access.routes import OPEN
from schemas.ports import Jet
from streams.api.measured import METHODS, UNKNOWN


class Traced:
    """ASGI middleware, inside of `Measured`."""

    def __init__(self, app: ASGIApp, jet: Jet) -> None:
        self._app, self._tracer = app, jet.tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._tracer.on or scope["path"] in OPEN:
            await self._app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in METHODS else UNKNOWN
        above = Headers(scope=scope).get("traceparent", "")
        with self._tracer.span(f"{method} {UNKNOWN}", "server", above) as span:

            async def sent(message: Message) -> None:
                if message["type"] == "http.response.start" and span.recording:
                    route = getattr(scope.get("route"), "path_format", "") or UNKNOWN
                    span.rename(f"{method} {route}")
                    span.set(
                        {
                            "http.request.method": method,
                            "http.route": route,
                            "http.response.status_code": message["status"],
                        }
                    )
                await send(message)

            await self._app(scope, receive, sent)
