"""Makes the span of a command: child of the request that sent it, if that one sends a traceparent.

1. A command without one begins a trace if it changes something. Questions begin none: they come all the time.
2. The events of a session are in the session's trace (streams/event_store/session_log.py), and link this one.
"""

from collections.abc import Awaitable, Callable

from schemas.ports import Tracer
from schemas.ports.telemetry import CURRENT
from schemas.telemetry.span_facts import COMMAND, ERROR, SESSION
from streams.control.auditor import UNAUDITED
from streams.control.measured import code_of, session_of

Answer = Callable[[str, bytes], Awaitable[bytes]]


def traced(tracer: Tracer, answer: Answer) -> Answer:
    """The same answers, with spans."""

    async def answered(name: str, raw: bytes) -> bytes:
        above = CURRENT.get()
        if not above and name in UNAUDITED:
            return await answer(name, raw)
        with tracer.span(f"command {name}", "server", above) as span:
            found = await answer(name, raw)
            if span.recording:
                code, session = code_of(found), session_of(raw)
                span.set({COMMAND: name, **({SESSION: session} if session else {})})
                span.set({ERROR: code} if code else {})
            return found

    return answered
