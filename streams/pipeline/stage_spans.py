"""Makes the spans of one stage: one for each delivery of a message, child of the span that the message names.

1. The key of a span is its stage and the message's stream sequence. So a redelivery after a crash has the
   same id as the delivery that published the result.
2. The host decided whether the trace is kept. A message without a trace has no span.
"""

from collections.abc import Callable
from contextlib import suppress

from pydantic import ValidationError

from schemas.events.chunk import ChunkEvent, StageEvent
from schemas.ports import Span, Tracer
from schemas.ports.messages import MSG_ID, Message
from schemas.ports.telemetry import CURRENT, NO_SPAN, Fact
from schemas.telemetry import span_facts
from schemas.telemetry.span_facts import CHUNK_TEMPLATE, message_facts
from schemas.telemetry.trace_context import TraceContext

SIZES = {
    "plain": span_facts.PLAIN_BYTES,
    "payload": span_facts.PAYLOAD_BYTES,
    "sealed": span_facts.SEALED_BYTES,
}
"""By member of an event."""


class StageSpans:
    """The spans of one stage in this process."""

    def __init__(self, tracer: Tracer, verb: str, host_of: Callable[[Message], str]) -> None:
        self._tracer, self._verb, self._host_of = tracer, verb, host_of
        self._name = f"process chunk.{verb}"

    def begin(self, message: Message) -> Span:
        """Begin the span of one delivery, in a task of its own: the span is CURRENT until that ends."""
        above = message.headers.get("traceparent", "")
        if not self._tracer.on or TraceContext.parse(above) is None:
            return NO_SPAN
        span = self._tracer.span(self._name, "consumer", above, key=f"{self._verb}.{message.seq}")
        CURRENT.set(span.traceparent)
        if span.recording:
            span.set(message_facts("process", CHUNK_TEMPLATE, message.subject))
            span.set(
                {
                    span_facts.STAGE: self._verb,
                    span_facts.HOST: self._host_of(message),
                    span_facts.ATTEMPT: message.deliveries,
                    span_facts.STREAM_SEQ: message.seq,
                    span_facts.MESSAGE_ID: message.headers.get(MSG_ID, ""),
                }
            )
        return span

    def end(self, span: Span, message: Message, result: StageEvent | None) -> None:
        """End the span of a job that is done. None: there is no result."""
        if span.recording and result is not None:
            span.set({span_facts.INDEX: result.index, span_facts.RUN: result.run, **_sizes(result)})
        elif span.recording:
            with suppress(ValidationError):
                claim = ChunkEvent.model_validate_json(message.data)
                span.set({span_facts.INDEX: claim.index, span_facts.RUN: claim.run})
        span.end()


def carried(span: Span, message: Message) -> str:
    """The traceparent of a result: that of its span, else that of the message."""
    return span.traceparent or message.headers.get("traceparent", "")


def _sizes(result: StageEvent) -> dict[str, Fact]:
    """The sizes that an event tells of."""
    found = {name: getattr(result, member, None) for member, name in SIZES.items()}
    return {name: size for name, size in found.items() if size is not None}
