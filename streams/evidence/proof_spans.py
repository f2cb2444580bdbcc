"""Makes the spans of work that proves evidence again: a replay, a pass of the scrub, an export.

1. The work on one chunk is in the trace of the chunk, below the span that stored it, however long ago.
2. The work on a session is in the trace of the session. Both name each other by links.
3. A chunk whose trace is not known, such as an index chunk, is in the trace of the session.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from handlers.lifecycle.session import Session
from schemas import subjects
from schemas.errors import Rejected
from schemas.events.chunk import Stored
from schemas.events.upcast import read_chunk_event
from schemas.format.index import Entry
from schemas.ports import Jet, Span, Tracer
from schemas.ports.telemetry import CURRENT, NO_TRACES, child
from schemas.telemetry.span_facts import INDEX, REPLAY, SEALED_BYTES, SESSION
from schemas.telemetry.trace_context import SESSION_KEY

REPLAY_SPAN, CHUNK_SPAN = "replay session", "replay chunk"


def session_span(tracer: Tracer, name: str, session: str, uid: bytes) -> Span:
    """Begin a span in the trace of a session."""
    span = tracer.span(name, parent=tracer.context(uid, SESSION_KEY))
    span.set({SESSION: session})
    return span


@dataclass(frozen=True, slots=True)
class ReplaySpans:
    """The spans of the replay of one session. By default there are none."""

    tracer: Tracer = NO_TRACES
    session: str = ""
    uid: bytes = b""
    stored: Mapping[int, str] = field(default_factory=dict)
    """By chunk index, the traceparent of its newest `stored` event."""

    @classmethod
    async def of(cls, jet: Jet, session: Session) -> "ReplaySpans":
        """Read the traceparents of the session's chunks; nothing if traces are off. Raises Unavailable."""
        if not jet.tracer.on:
            return cls()
        found: dict[int, str] = {}
        async for message in jet.read_all(subjects.CHUNKS, subjects.chunk(subjects.STORED, session.id)):
            try:
                event = read_chunk_event(message.data)
            except Rejected:  # of a stranger, under this name
                continue
            if isinstance(event, Stored) and event.uid == session.uid:
                found[event.index] = message.headers.get("traceparent", "")
        return cls(jet.tracer, session.id, session.uid, found)

    def of_session(self) -> Span:
        """Begin the span of the whole replay."""
        span = session_span(self.tracer, REPLAY_SPAN, self.session, self.uid)
        span.set({REPLAY: True})
        for traceparent in self.stored.values():
            span.link(traceparent)
        return span

    def of_chunk(self, entry: Entry) -> Span:
        """Begin the span of one chunk. CURRENT: the work that wants it."""
        span = child(self.tracer, CHUNK_SPAN, above=self.stored.get(entry.index, ""))
        span.link(CURRENT.get())
        span.set({SESSION: self.session, INDEX: entry.index, SEALED_BYTES: entry.sealed, REPLAY: True})
        return span
