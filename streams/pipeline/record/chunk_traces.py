"""Chooses the trace of each chunk of one session, and makes the span of the stage `record`.

1. A host chooses the ids of its traces, and sends any text. A trace is one of its session if the id is
   `stretch_trace` of the session's uid and of a number near the chunk: none names a trace of another session.
2. A chunk has the first such trace that one of its fragments begins (FIRST_KEY). Other traces are linked.
3. A host that guessed another cut (streams/host/fragment_traces.py) has begun one trace for two chunks. Then
   the second chunk has the next trace that begins in it.
4. If none begins in it, the platform begins one. Its id follows from session and index: every owner of the
   session begins the same. It is kept if the session's traces in it are; without one the sampler decides.
5. One host has a bounded number of traces kept (trace_quota.py). Beyond it a chunk's trace is not kept.
6. The span ends before its event is appended. After a crash between the two the chunk is closed again, and
   the second span has the same id. If it ended after the append, a crash there would lose it for good.
"""

import time
from collections.abc import Iterable, Mapping

from handlers.stages.record.pieces import Identity
from schemas.events.chunk import Recorded
from schemas.ports import Span, Tracer
from schemas.subjects import UPLOAD_HOST, recording
from schemas.telemetry import span_facts
from schemas.telemetry.span_facts import RECORDING_TEMPLATE, message_facts
from schemas.telemetry.trace_context import SESSION_KEY, TraceContext, begins, chunk_trace, stretch_trace
from streams.event_store.chunk_log import stream_seqs
from streams.pipeline.record.trace_quota import TraceQuota

SPAN = "process chunk.record"
NOTED_MOST = 4096
"""More than the fragments of a chunk and of a window: only a hostile host has more that are not dropped."""
NEAR = 32
"""How far the host's number of a chunk and the platform's may differ: lost fragments change the cuts."""


def host_traces(uid: bytes, index: int) -> set[str]:
    """Return the ids of the traces that a session's host may name in fragments near this chunk."""
    numbers = range(max(index - NEAR, 0), index + NEAR + 1)
    return {stretch_trace(uid, number).hex() for number in numbers}


class ChunkTraces:
    """The contexts of the fragments outside closed chunks."""

    def __init__(self, tracer: Tracer, identity: Identity, quota: TraceQuota) -> None:
        self._tracer, self._identity, self._quota = tracer, identity, quota
        self._noted: dict[int, tuple[TraceContext, int]] = {}
        """By stream sequence: the context, and when the fragment came (ns)."""

    def note(self, stream_seq: int, traceparent: str) -> None:
        """A fragment goes to the fold. Its host may have sent any text."""
        context = TraceContext.parse(traceparent) if traceparent else None
        if context is not None and len(self._noted) < NOTED_MOST:
            self._noted[stream_seq] = context, time.time_ns()

    def drop(self, stream_seq: int) -> str:
        """The fold did not take the fragment; return its traceparent, empty: it has none."""
        context, _ = self._noted.pop(stream_seq, (None, 0))
        return "" if context is None else str(context)

    def restart(self, traceparents: Mapping[int, str]) -> None:
        """Begin again at a checkpoint. traceparents: of its open fragments."""
        self._noted.clear()
        for stream_seq, traceparent in traceparents.items():
            self.note(stream_seq, traceparent)

    def close(self, chunk: Recorded) -> str:
        """Return the traceparent of a closed chunk's event; empty: it has no trace."""
        noted = [self._noted.pop(seq, None) for seq in stream_seqs(chunk)]
        contexts = [context for context, _ in filter(None, noted)]
        ours = self._ours(chunk, contexts)
        adopted = next(filter(begins, ours), None)
        if not self._tracer.on:
            return str(adopted or "")
        span = self._begin(chunk, adopted, next(iter(ours), None))
        if span.recording:
            span.since(min((came_ns for _, came_ns in filter(None, noted)), default=0))
            self._describe(span, chunk)
            self._link(span, contexts)
        traceparent = span.traceparent
        span.end()
        return traceparent

    def _ours(self, chunk: Recorded, contexts: list[TraceContext]) -> list[TraceContext]:
        """The contexts in traces that the host may have begun for this chunk (rule 1)."""
        if not contexts:
            return []
        uid, size = self._identity.uid, self._identity.settings.chunk_bytes
        known = host_traces(uid, chunk.index)
        if self._identity.host == UPLOAD_HOST:  # it counts by bytes alone, and time has closed more chunks
            counts = chunk.offset // size, (chunk.offset + chunk.plain) // size
            known.update(stretch_trace(uid, number).hex() for number in counts)
        return [one for one in contexts if one.trace_id in known]

    def _begin(self, chunk: Recorded, adopted: TraceContext | None, like: TraceContext | None) -> Span:
        uid = self._identity.uid
        key, trace = f"record.{uid.hex()}.{chunk.index}", chunk_trace(uid, chunk.index)

        def begun(above: TraceContext | None, like: TraceContext | None) -> Span:
            if above is not None:
                return self._tracer.span(SPAN, "consumer", str(above), key=key)
            return self._tracer.span(SPAN, "consumer", trace=trace, key=key, like=str(like or ""))

        span = begun(adopted, like)
        if span.recording and not self._quota.take(self._identity.host):
            unkept = TraceContext(trace.hex(), "1" * 16, False)
            return begun(adopted._replace(sampled=False) if adopted else None, unkept)
        return span

    def _describe(self, span: Span, chunk: Recorded) -> None:
        span.set(message_facts("process", RECORDING_TEMPLATE, recording(chunk.host, chunk.session)))
        span.set(
            {
                span_facts.HOST: chunk.host,
                span_facts.INDEX: chunk.index,
                span_facts.STAGE: "record",
                span_facts.MESSAGES: len(chunk.stream),
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
