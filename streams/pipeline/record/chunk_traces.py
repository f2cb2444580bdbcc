"""Chooses the trace of each chunk of one session, and makes the span of the stage `record`.

1. A chunk has the trace of its first fragment. Other traces among its fragments are linked.
2. One trace is one chunk's. A host that guessed another cut (streams/host/fragment_traces.py) has begun the
   trace of two chunks at once. Then the second one takes the next trace among its fragments.
3. If no fragment names another trace, the platform begins one. Its id follows from session and index: every
   owner of the session begins the same.
4. The span ends before its event is appended. After a crash between the two the chunk is closed again, and
   the second span has the same id. If it ended after the append, a crash there would lose it for good.
"""

import time
from collections.abc import Iterable, Mapping

from handlers.stages.record.pieces import Identity
from schemas.events.chunk import Recorded
from schemas.ports import Span, Tracer
from schemas.telemetry import span_facts
from schemas.telemetry.span_facts import RECORDING_TEMPLATE, message_facts
from schemas.telemetry.trace_context import SESSION_KEY, TraceContext, chunk_trace
from streams.event_store.chunk_log import stream_seqs

SPAN = "process chunk.record"
NOTED_MOST = 4096
"""More than the fragments of a chunk and of a window: only a hostile host has more that are not dropped."""


class ChunkTraces:
    """The contexts of the fragments outside closed chunks."""

    def __init__(self, tracer: Tracer, identity: Identity) -> None:
        self._tracer, self._identity = tracer, identity
        self._noted: dict[int, tuple[TraceContext, int]] = {}
        """By stream sequence: the context, and when the fragment came (ns)."""
        self._previous = ""
        """Trace id of the chunk before."""

    def note(self, stream_seq: int, traceparent: str) -> None:
        """A fragment goes to the fold. Its host may have sent any text."""
        context = TraceContext.parse(traceparent) if traceparent else None
        if context is not None and len(self._noted) < NOTED_MOST:
            self._noted[stream_seq] = context, time.time_ns()

    def drop(self, stream_seq: int) -> str:
        """The fold did not take the fragment; return its traceparent, empty: it has none."""
        context, _ = self._noted.pop(stream_seq, (None, 0))
        return "" if context is None else str(context)

    def restart(self, previous: str, traceparents: Mapping[int, str]) -> None:
        """Begin again at a checkpoint. previous: of the last chunk; traceparents: of its open fragments."""
        before = TraceContext.parse(previous)
        self._previous = "" if before is None else before.trace_id
        self._noted.clear()
        for stream_seq, traceparent in traceparents.items():
            self.note(stream_seq, traceparent)

    def close(self, chunk: Recorded) -> str:
        """Return the traceparent of a closed chunk's event; empty: it has no trace."""
        noted = [self._noted.pop(seq, None) for seq in stream_seqs(chunk)]
        contexts = [context for context, _ in filter(None, noted)]
        if not self._tracer.on:
            return str(contexts[0]) if contexts else ""
        span = self._begin(chunk.index, contexts)
        if span.recording:
            span.since(min((came_ns for _, came_ns in filter(None, noted)), default=0))
            self._describe(span, chunk)
            self._link(span, contexts)
        traceparent = span.traceparent
        span.end()
        self._previous = traceparent.split("-")[1]
        return traceparent

    def _begin(self, index: int, contexts: list[TraceContext]) -> Span:
        adopted = next((one for one in contexts if one.trace_id != self._previous), None)
        key = f"record.{index}"
        if adopted is not None:
            return self._tracer.span(SPAN, "consumer", str(adopted), key=key)
        like = str(contexts[0]) if contexts else ""
        return self._tracer.span(
            SPAN, "consumer", trace=chunk_trace(self._identity.uid, index), key=key, like=like
        )

    def _describe(self, span: Span, chunk: Recorded) -> None:
        span.set(message_facts("process", RECORDING_TEMPLATE, chunk.session))
        span.set(
            {
                span_facts.HOST: chunk.host,
                span_facts.INDEX: chunk.index,
                span_facts.STAGE: "record",
                span_facts.FRAGMENTS: len(chunk.stream),
                span_facts.PLAIN_BYTES: chunk.plain,
                "lucid.closed_by": chunk.closed_by,
            }
        )

    def _link(self, span: Span, contexts: Iterable[TraceContext]) -> None:
        """Link the session's trace, and the first span of each other trace among the fragments."""
        span.link(self._tracer.context(self._identity.uid, SESSION_KEY))
        own = span.traceparent.split("-")[1]
        others = {one.trace_id: one for one in reversed(list(contexts)) if one.trace_id != own}
        for one in others.values():
            span.link(str(one))
