"""Names our span to the services that are asked over HTTP: a `traceparent` in each request.

Work without a span sends none, and OTEL_PROPAGATORS=none forbids it.
"""

from typing import TYPE_CHECKING

from infra.telemetry.otel_environment import propagates
from schemas.ports.telemetry import CURRENT

if TYPE_CHECKING:
    import httpx

HEADER = "traceparent"


async def add_traceparent(request: "httpx.Request") -> None:
    """A hook of httpx: add the header of the span around this task."""
    current = CURRENT.get()
    if current and propagates():
        request.headers[HEADER] = current


HOOKS = {"request": [add_traceparent]}
"""The `event_hooks` of every client."""
