"""Begins a trace for each chunk that the host expects, and a span for each fragment of it.

1. The first fragment's span begins the trace. The spans of the others are its children.
2. The host expects a chunk to end where the stage `record` ends it (format.md §5), as far as one recorder can
   tell. A wrong guess costs nothing but a link: `record` decides (streams/pipeline/record/chunk_traces.py).
3. A span lasts until the stream holds its fragment. A fragment that is sent again keeps its traceparent.
"""

from dataclasses import dataclass

from schemas.format.fragment import HEADER_BYTES, KEY_FRAME, TAG_BYTES, Header, Kind
from schemas.ports import Span, Tracer
from schemas.subjects import recording
from schemas.telemetry import span_facts
from schemas.telemetry.span_facts import RECORDING_TEMPLATE, message_facts
from schemas.telemetry.trace_context import FIRST_KEY, stretch_trace

SPAN = "publish lucid.rec"


@dataclass(slots=True)
class ExpectedChunk:
    """The chunk that the fragments of one recorder are filling. max_seconds 0: time closes none."""

    chunk_bytes: int
    max_seconds: int = 0
    number: int = -1
    """Of the expected chunks of this recording; -1: none has begun."""
    plain: int = 0
    first_us: int = 0
    has_data: bool = False
    is_over: bool = True
    """The next fragment begins another one."""

    def add(self, header: Header) -> bool:
        """Add a fragment; return whether it begins a chunk."""
        plain = header.body_length - TAG_BYTES if header.kind is Kind.DATA else 0
        begins = self._begins(header, plain)
        if begins:
            self.number, self.plain, self.first_us, self.has_data = self.number + 1, 0, header.time_us, False
        self.plain += plain
        self.has_data = self.has_data or plain > 0
        self.is_over = header.kind is Kind.PAUSE
        return begins

    def _begins(self, header: Header, plain: int) -> bool:
        if self.is_over or header.kind is Kind.PART or self.plain + plain > self.chunk_bytes:
            return True
        if header.flags & KEY_FRAME and 4 * self.plain >= 3 * self.chunk_bytes:
            return True
        late = header.time_us >= self.first_us + self.max_seconds * 1_000_000
        return self.max_seconds > 0 and self.has_data and late


class FragmentTraces:
    """The spans of one recorder's fragments that are under way."""

    def __init__(self, tracer: Tracer, host: str, session: str, uid: bytes, expected: ExpectedChunk) -> None:
        self._tracer, self._uid, self._expected = tracer, uid, expected
        subject = recording(host, session)
        self._facts = {**message_facts("send", RECORDING_TEMPLATE, subject), span_facts.HOST: host}
        self._first = ""
        self._under_way: dict[str, Span] = {}
        """Spans by traceparent."""

    def begin(self, fragment: bytearray) -> str:
        """Begin the span of a fragment, in order of seq; return its traceparent. Empty: traces are off."""
        if not self._tracer.on:
            return ""
        header = Header.parse(fragment[:HEADER_BYTES])
        if self._expected.add(header):
            trace = stretch_trace(self._uid, self._expected.number)
            span = self._tracer.span(SPAN, "producer", trace=trace, key=FIRST_KEY)
            self._first = span.traceparent
        else:
            span = self._tracer.span(SPAN, "producer", self._first)
        if not span.recording:
            return span.traceparent
        span.set(self._facts)
        span.set({span_facts.FRAGMENT_SEQ: header.seq, span_facts.BODY_BYTES: len(fragment)})
        self._under_way[span.traceparent] = span
        return span.traceparent

    def sent(self, traceparent: str, stream_seq: int) -> None:
        """The stream holds the fragment."""
        span = self._under_way.pop(traceparent, None)
        if span is not None:
            span.set({span_facts.STREAM_SEQ: stream_seq})
            span.end()

    def close(self, error: BaseException) -> None:
        """The fragments under way are given up."""
        for span in self._under_way.values():
            span.fail(error)
            span.end()
        self._under_way.clear()
