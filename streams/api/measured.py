"""Counts the requests of an application, their times and their errors, by the template of the route.

1. The time ends with the head of the answer: a download takes as long as its reader wants.
2. A path that is no route of ours is counted under UNKNOWN: no client makes up labels.
3. An answer with a problem document is counted under its code, too.
"""

import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.config.logs import bind
from schemas.ports.metrics import Meter, count_error, trace_id_of

UNKNOWN = "unknown"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
PROBLEM = "lucid.problem"
"""In the scope of a request: the code of the problem document that answers it."""
BUG = "api.bug"


class Measured:
    """ASGI middleware, outside of all others."""

    def __init__(self, app: ASGIApp, meter: Meter) -> None:
        self._app, self._meter = app, meter
        self._under_way = 0
        meter.value("lucid_http_requests_under_way", "Requests without an end yet.", lambda: self._under_way)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s, status = time.perf_counter(), 0
        bind(trace_id=trace_id_of(Headers(scope=scope)))

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._count(scope, status, time.perf_counter() - began_s)
            await send(message)

        self._under_way += 1
        try:
            await self._app(scope, receive, sent)
        except Exception:
            if not status:  # the framework answers a bug outside of all middleware
                scope[PROBLEM] = BUG
                self._count(scope, 500, time.perf_counter() - began_s)
            raise
        finally:
            self._under_way -= 1

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path_format", "") or UNKNOWN
        method = scope["method"] if scope["method"] in METHODS else UNKNOWN
        self._meter.counter(
            "lucid_http_requests",
            "Requests over HTTP.",
            method=method,
            route=route,
            status=f"{status // 100}xx",
        ).add()
        self._meter.histogram(
            "lucid_http_request_seconds",
            "From a request to the head of its answer.",
            method=method,
            route=route,
        ).observe(seconds)
        code = scope.get(PROBLEM)
        if code is not None:
            count_error(self._meter, code)
