"""Begins a trace for each chunk that an upload is expected to fill, and a span for each of its fragments."""

from schemas.ports import Span, Tracer
from schemas.ports.telemetry import CURRENT, NO_SPAN
from schemas.subjects import UPLOAD_HOST
from schemas.telemetry import span_facts
from schemas.telemetry.span_facts import RECORDING_TEMPLATE, message_facts
from schemas.telemetry.trace_context import stretch_trace
from streams.host.fragment_traces import FIRST, SPAN
from streams.host.upload_chain import Chain


def uploaded(tracer: Tracer, chain: Chain) -> Span:
    """Begin the span of the next fragment of an upload.

    The platform is the host: no recorder lives from one request to the next. So an expected chunk is a number
    of bytes. Its trace is linked to the request that begins it, and kept if that one is.
    """
    if not tracer.on:
        return NO_SPAN
    number, uid = chain.offset // chain.created.settings.chunk_bytes, chain.session.uid
    request, trace = CURRENT.get(), stretch_trace(uid, number)
    if number != chain.stretch:
        span = tracer.span(SPAN, "producer", trace=trace, key=FIRST, like=request)
        chain.stretch, chain.first = number, span.traceparent
    else:
        span = tracer.span(SPAN, "producer", chain.first or tracer.context(trace, FIRST, request))
    span.link(request)
    span.set(message_facts("send", RECORDING_TEMPLATE, chain.session.id))
    span.set({span_facts.HOST: UPLOAD_HOST, span_facts.FRAGMENT_SEQ: chain.sealer.state.next_seq})
    return span
