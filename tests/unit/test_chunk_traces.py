"""What streams.pipeline.record.chunk_traces promises, and that a chunk driven again stays in its trace."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from infra.telemetry.otel_environment import Sampling
from infra.telemetry.span_export import EndedSpan
from infra.telemetry.tracing import OtelTracer
from schemas.ports import NO_TRACES, Tracer
from schemas.ports.messages import Message, PubAck
from schemas.telemetry.trace_context import TraceContext, chunk_trace
from streams.conductor.redriving import redrive
from streams.pipeline.record import chunk_traces
from streams.pipeline.record.chunk_traces import ChunkTraces

UID = bytes(range(16))
IDENTITY: Any = SimpleNamespace(session="s-1", uid=UID, host="host-1")
FIRST, SECOND = (TraceContext(letter * 32, letter * 16, True) for letter in "ab")


@dataclass
class Kept:
    """Keeps the spans that would be exported."""

    spans: list[EndedSpan] = field(default_factory=list)

    def add(self, span: EndedSpan) -> None:
        self.spans.append(span)


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def tracer(kept: Kept) -> Tracer:
    export: Any = kept
    return OtelTracer(export, Sampling())


def chunk(index: int, *stream_seqs: int) -> Any:
    """A closed chunk of these fragments."""
    deltas = tuple(now - before for now, before in zip(stream_seqs, (0, *stream_seqs), strict=False))
    return SimpleNamespace(
        session="s-1", host="host-1", index=index, stream=deltas, plain=1, closed_by="size"
    )


def closed(traces: ChunkTraces, index: int, **fragments: TraceContext | None) -> TraceContext:
    """The context of a chunk whose fragments name these contexts."""
    for number, context in fragments.items():
        traces.note(int(number[1:]), str(context or ""))
    found = TraceContext.parse(traces.close(chunk(index, *(int(number[1:]) for number in fragments))))
    assert found is not None
    return found


def test_a_chunk_has_the_trace_of_its_first_fragment_and_links_the_others(tracer: Tracer, kept: Kept) -> None:
    """Breaks: the way of a chunk from its host to the store is in two traces."""
    traces = ChunkTraces(tracer, IDENTITY)
    found = closed(traces, 0, f1=FIRST, f2=FIRST, f3=SECOND)
    assert found.trace_id == FIRST.trace_id
    (span,) = kept.spans
    assert (span.span_id, span.parent_id) == (found.span_id, FIRST.span_id)
    assert span.links == [(UID.hex(), span.links[0][1]), (SECOND.trace_id, SECOND.span_id)]


def test_two_chunks_under_one_guess_of_the_host_are_two_traces(tracer: Tracer) -> None:
    """Breaks: a trace shows two chunks as one."""
    traces = ChunkTraces(tracer, IDENTITY)
    assert closed(traces, 0, f1=FIRST).trace_id == FIRST.trace_id
    assert closed(traces, 1, f2=FIRST, f3=SECOND).trace_id == SECOND.trace_id
    assert closed(traces, 2, f4=SECOND).trace_id == chunk_trace(UID, 2).hex()
    assert closed(traces, 3, f5=None).trace_id == chunk_trace(UID, 3).hex()


def test_the_next_owner_gives_a_chunk_the_same_trace(tracer: Tracer) -> None:
    """Breaks: after a crash the rest of an open chunk is in another trace, or in that of the chunk before."""
    before = ChunkTraces(tracer, IDENTITY)
    last = closed(before, 0, f1=FIRST)
    expected = closed(before, 1, f2=FIRST, f3=SECOND)
    after = ChunkTraces(tracer, IDENTITY)
    after.restart(str(last), {2: str(FIRST)})
    after.note(3, str(SECOND))
    assert after.close(chunk(1, 2, 3)) == str(expected)


def test_a_trace_that_is_not_kept_is_handed_on_unkept(tracer: Tracer, kept: Kept) -> None:
    """Breaks: a host that keeps few traces gets halves of all the others."""
    unkept = FIRST._replace(sampled=False)
    found = closed(ChunkTraces(tracer, IDENTITY), 0, f1=unkept)
    assert (found.trace_id, found.sampled, kept.spans) == (FIRST.trace_id, False, [])


def test_fragments_that_no_chunk_takes_fill_no_memory(tracer: Tracer) -> None:
    """Breaks: a hostile host's fragments of made-up traces fill the memory of a worker."""
    traces = ChunkTraces(tracer, IDENTITY)
    for number in range(1, chunk_traces.NOTED_MOST + 100):
        traces.note(number, str(FIRST))
    assert len(traces._noted) == chunk_traces.NOTED_MOST
    traces.drop(1)
    assert len(traces._noted) == chunk_traces.NOTED_MOST - 1


def test_without_traces_an_event_names_the_first_context() -> None:
    """Breaks: where the platform traces nothing, a log names no trace of its hosts."""
    traces = ChunkTraces(NO_TRACES, IDENTITY)
    traces.note(1, "none")
    traces.note(2, str(SECOND))
    assert traces.close(chunk(0, 1, 2)) == str(SECOND)
    assert traces.close(chunk(1, 3)) == ""


async def test_a_chunk_that_is_driven_again_stays_in_its_trace(tracer: Tracer, kept: Kept) -> None:
    """Breaks: the second way of a chunk is nowhere to be found from the first one."""

    class Log:
        """A connection that has one `recorded` event."""

        published: Message

        def __init__(self) -> None:
            self.tracer = tracer

        async def get(self, stream: str, seq: int) -> Message | None:
            return Message("recorded", b"", {"traceparent": str(FIRST)}, seq)

        async def publish(self, subject: str, data: bytes, headers: Any, msg_id: str) -> PubAck:
            self.published = Message(subject, data, headers)
            return PubAck(8, False)

    log: Any = Log()
    created: Any = SimpleNamespace(id="s-1", uid=UID, run=1)
    await redrive(log, created, [3], {3: 7})
    found = TraceContext.parse(log.published.headers["traceparent"])
    (span,) = kept.spans
    assert found == (FIRST.trace_id, span.span_id, True)
    assert (span.parent_id, span.facts["lucid.run"]) == (FIRST.span_id, 1)
