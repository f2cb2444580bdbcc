"""Makes the span of a command that came with a traceparent: child of the request that sent it.

A command without one begins no trace: most are questions that come all the time. The events of a session are
in the session's trace (streams/event_store/session_log.py).
"""

from collections.abc import Awaitable, Callable

from schemas.ports import Tracer
from schemas.ports.telemetry import CURRENT

Answer = Callable[[str, bytes], Awaitable[bytes]]


def traced(tracer: Tracer, answer: Answer) -> Answer:
    """The same answers, with spans."""

    async def answered(name: str, raw: bytes) -> bytes:
        above = CURRENT.get()
        if not above:
            return await answer(name, raw)
        with tracer.span(f"command {name}", "server", above):
            return await answer(name, raw)

    return answered
