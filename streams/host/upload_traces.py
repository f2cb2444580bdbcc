"""Begins a trace for each chunk that an upload is expected to fill, and a span for each of its fragments."""

from schemas.ports import Span, Tracer
from schemas.ports.telemetry import CURRENT, NO_SPAN
from schemas.subjects import UPLOAD_HOST, recording
from schemas.telemetry import span_facts
from schemas.telemetry.span_facts import RECORDING_TEMPLATE, message_facts
from schemas.telemetry.trace_context import FIRST_KEY, TraceContext, span_of, stretch_trace
from streams.host.fragment_traces import SPAN
from streams.host.upload_chain import Chain


def uploaded(tracer: Tracer, chain: Chain) -> Span:
    """Begin the span of the next fragment of an upload.

    The platform is the host: no recorder lives from one request to the next. So an expected chunk is a number
    of bytes. Its trace is linked to the request that begins it, and kept if that one is. The caller ends the
    span; if the stream does not hold the fragment, the span fails with `sent=False`: the next one has its id.
    """
    if not tracer.on:
        return NO_SPAN
    request, trace = CURRENT.get(), _trace(chain)
    known = TraceContext.parse(chain.traceparent)
    if known is None or known.trace_id != trace.hex():
        span = tracer.span(SPAN, "producer", trace=trace, key=FIRST_KEY, like=request)
    else:
        first = known._replace(span_id=span_of(known.trace_id, FIRST_KEY))
        span = tracer.span(SPAN, "producer", str(first))
    chain.traceparent = span.traceparent
    span.link(request)
    span.set(message_facts("send", RECORDING_TEMPLATE, recording(UPLOAD_HOST, chain.session.id)))
    span.set({span_facts.HOST: UPLOAD_HOST, span_facts.FRAGMENT_SEQ: chain.sealer.state.next_seq})
    return span


def _trace(chain: Chain) -> bytes:
    """The trace of the chunk that the next fragment is expected in."""
    return stretch_trace(chain.session.uid, chain.offset // chain.created.settings.chunk_bytes)
