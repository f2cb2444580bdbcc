"""An ended span: as it is noted and queued, and as the SDK exports it.

The span of the SDK is made in the thread that exports it: the event loop only fills a tuple.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

KINDS = {kind.name.lower(): kind for kind in SpanKind}
SAMPLED = TraceFlags(TraceFlags.SAMPLED)
SCOPE = InstrumentationScope("lucid")
QUEUED = SpanContext(1, 1, False, SAMPLED)


class EndedSpan(NamedTuple):
    """A span as it is noted and exported. Ids are hex; times are ns since 1970."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    began_ns: int
    ended_ns: int
    facts: dict[str, Any]
    links: Sequence[Sequence[str]]
    """Trace id and span id of each."""
    error: str


class QueuedSpan(ReadableSpan):
    """An ended span in the queue of the SDK, which asks it only whether it is sampled."""

    def __init__(self, number: int, ended: EndedSpan, resource: Resource) -> None:
        self.number, self.ended, self.origin = number, ended, resource
        self._context = QUEUED


def sdk_span(queued: QueuedSpan) -> ReadableSpan:
    """Return the span to export. Raises ValueError, KeyError, TypeError: it is of another version."""
    span = queued.ended
    trace_id = int(span.trace_id, 16)
    return ReadableSpan(
        name=span.name,
        context=SpanContext(trace_id, int(span.span_id, 16), False, SAMPLED),
        parent=SpanContext(trace_id, int(span.parent_id, 16), True, SAMPLED) if span.parent_id else None,
        resource=queued.origin,
        attributes=span.facts,
        links=[Link(SpanContext(int(trace, 16), int(one, 16), True, SAMPLED)) for trace, one in span.links],
        kind=KINDS[span.kind],
        status=Status(StatusCode.ERROR, span.error) if span.error else Status(),
        start_time=span.began_ns,
        end_time=span.ended_ns,
        instrumentation_scope=SCOPE,
    )
