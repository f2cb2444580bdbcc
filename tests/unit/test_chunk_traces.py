"""What streams.pipeline.record.chunk_traces promises, and that a chunk driven again stays in its trace."""

from types import SimpleNamespace
from typing import Any

import pytest

from schemas.ports import NO_TRACES, Tracer
from schemas.ports.messages import Message, PubAck
from schemas.subjects import UPLOAD_HOST
from schemas.telemetry.trace_context import FIRST_KEY, TraceContext, chunk_trace, span_of, stretch_trace
from streams.conductor.redriving import redrive
from streams.pipeline.record import chunk_traces, trace_quota
from streams.pipeline.record.chunk_traces import NEAR, ChunkTraces
from streams.pipeline.record.trace_quota import TraceQuota
from tests.support.pipeline.kept_spans import KeptSpans

UID = bytes(range(16))
SIZE = 1 << 18
IDENTITY: Any = SimpleNamespace(
    session="s-1", uid=UID, host="host-1", settings=SimpleNamespace(chunk_bytes=SIZE)
)


def first(number: int, uid: bytes = UID) -> TraceContext:
    """The context of the first fragment of a host's expected chunk."""
    trace = stretch_trace(uid, number).hex()
    return TraceContext(trace, span_of(trace, FIRST_KEY), True)


def later(number: int) -> TraceContext:
    """The context of another fragment of it."""
    return first(number)._replace(span_id="a" * 16)


@pytest.fixture
def kept() -> KeptSpans:
    return KeptSpans()


@pytest.fixture
def tracer(kept: KeptSpans) -> Tracer:
    return kept.tracer()


def traces_of(tracer: Tracer) -> ChunkTraces:
    return ChunkTraces(tracer, IDENTITY, TraceQuota())


def chunk(index: int, *stream_seqs: int, offset: int = 0) -> Any:
    """A closed chunk of these fragments."""
    deltas = tuple(now - before for now, before in zip(stream_seqs, (0, *stream_seqs), strict=False))
    return SimpleNamespace(
        session="s-1", host="host-1", index=index, stream=deltas, offset=offset, plain=1, closed_by="size"
    )


def closed(traces: ChunkTraces, index: int, **fragments: TraceContext | None) -> TraceContext:
    """The context of a chunk whose fragments name these contexts."""
    for number, context in fragments.items():
        traces.note(int(number[1:]), str(context or ""))
    found = TraceContext.parse(traces.close(chunk(index, *(int(number[1:]) for number in fragments))))
    assert found is not None
    return found


def test_a_chunk_has_the_trace_that_begins_in_it_and_links_the_others(
    tracer: Tracer, kept: KeptSpans
) -> None:
    """Breaks: the way of a chunk from its host to the store is in two traces."""
    found = closed(traces_of(tracer), 0, f1=first(0), f2=later(0), f3=first(1))
    assert found.trace_id == first(0).trace_id
    (span,) = kept.spans
    assert (span.span_id, span.parent_id) == (found.span_id, first(0).span_id)
    assert span.links == [(UID.hex(), span.links[0][1]), (first(1).trace_id, first(1).span_id)]


def test_two_chunks_under_one_guess_of_the_host_are_two_traces(tracer: Tracer) -> None:
    """Breaks: a trace shows two chunks as one."""
    traces = traces_of(tracer)
    assert closed(traces, 0, f1=first(0)).trace_id == first(0).trace_id
    assert closed(traces, 1, f2=later(0), f3=first(1)).trace_id == first(1).trace_id
    assert closed(traces, 2, f4=later(1)).trace_id == chunk_trace(UID, 2).hex()
    assert closed(traces, 3, f5=later(1)).trace_id == chunk_trace(UID, 3).hex()
    assert closed(traces, 4, f6=None).trace_id == chunk_trace(UID, 4).hex()


@pytest.mark.parametrize(
    "forged",
    [
        first(0, bytes(16)),
        first(NEAR + 1),
        TraceContext("a" * 32, "b" * 16, True),
        TraceContext(UID.hex(), span_of(UID.hex(), FIRST_KEY), True),
        first(0)._replace(span_id="b" * 16),
    ],
    ids=["another session", "far away", "made up", "the session's own", "begun by no fragment"],
)
def test_a_trace_that_its_host_may_not_name_is_linked_alone(
    forged: TraceContext, tracer: Tracer, kept: KeptSpans
) -> None:
    """Breaks: a hostile host writes spans into the trace of somebody else's recording."""
    assert closed(traces_of(tracer), 0, f1=forged).trace_id == chunk_trace(UID, 0).hex()
    (span,) = kept.spans
    assert span.parent_id == ""
    assert forged.trace_id in {trace for trace, _ in span.links}


def test_an_upload_counts_by_bytes_though_time_closed_many_chunks(tracer: Tracer) -> None:
    """Breaks: a slow upload has no traces of its requests any more after some chunks."""
    upload: Any = SimpleNamespace(**{**vars(IDENTITY), "host": UPLOAD_HOST})
    for identity, wanted in ((upload, first(2).trace_id), (IDENTITY, chunk_trace(UID, 1000).hex())):
        traces = ChunkTraces(tracer, identity, TraceQuota())
        traces.note(1, str(first(2)))
        found = TraceContext.parse(traces.close(chunk(1000, 1, offset=2 * SIZE)))
        assert found is not None
        assert found.trace_id == wanted


def test_the_next_owner_gives_a_chunk_the_same_trace(tracer: Tracer) -> None:
    """Breaks: after a crash the rest of an open chunk is in another trace, or in that of the chunk before."""
    before = traces_of(tracer)
    closed(before, 0, f1=first(0))
    expected = closed(before, 1, f2=later(0), f3=first(1))
    after = traces_of(tracer)
    after.restart({2: str(later(0))})
    after.note(3, str(first(1)))
    assert after.close(chunk(1, 2, 3)) == str(expected)


@pytest.mark.parametrize("make", [first, later])
def test_a_trace_that_is_not_kept_is_handed_on_unkept(make: Any, tracer: Tracer, kept: KeptSpans) -> None:
    """Breaks: a host that keeps few traces gets halves of all the others."""
    found = closed(traces_of(tracer), 0, f1=make(0)._replace(sampled=False))
    assert (found.sampled, kept.spans) == (False, [])


def test_one_host_keeps_a_bounded_number_of_traces(
    tracer: Tracer, kept: KeptSpans, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a hostile host that samples every small chunk drives all others out of the queue."""
    monkeypatch.setattr(trace_quota, "BURST", 3)
    now_s, left_out = [0.0], []
    quota = TraceQuota(lambda: left_out.append(1), lambda: now_s[0])
    hostile = ChunkTraces(tracer, IDENTITY, quota)
    other: Any = SimpleNamespace(**{**vars(IDENTITY), "host": "host-2"})
    for index in range(10):
        found = closed(hostile, index, f1=first(index) if index % 2 else None)
        assert found.sampled is (index < 3)
        assert found.trace_id == (first(index).trace_id if index % 2 else chunk_trace(UID, index).hex())
    assert (len(kept.spans), len(left_out)) == (3, 7)
    assert closed(ChunkTraces(tracer, other, quota), 0, f1=first(0)).sampled
    now_s[0] = 1 / trace_quota.CHUNKS_PER_S
    assert closed(hostile, 10, f1=first(10)).sampled
    assert not closed(hostile, 11, f1=first(11)).sampled


def test_the_quota_remembers_a_bounded_number_of_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: 10⁵ hosts, one after the other, fill the memory of a worker."""
    monkeypatch.setattr(trace_quota, "HOSTS_MOST", 8)
    now_s = [0.0]
    quota = TraceQuota(clock_s=lambda: now_s[0])
    for number in range(100):
        now_s[0] += 1
        assert quota.take(f"host-{number}")
        assert len(quota._full_s) <= 8


def test_fragments_that_no_chunk_takes_fill_no_memory(tracer: Tracer) -> None:
    """Breaks: a hostile host's fragments of made-up traces fill the memory of a worker."""
    traces = traces_of(tracer)
    for number in range(1, chunk_traces.NOTED_MOST + 100):
        traces.note(number, str(later(0)))
    assert len(traces._noted) == chunk_traces.NOTED_MOST
    traces.drop(1)
    assert len(traces._noted) == chunk_traces.NOTED_MOST - 1


def test_without_traces_an_event_names_the_trace_that_its_host_began() -> None:
    """Breaks: where the platform traces nothing, a log names no trace of its hosts, or a made-up one."""
    traces = traces_of(NO_TRACES)
    traces.note(1, str(first(0, bytes(16))))
    traces.note(2, str(first(0)))
    assert traces.close(chunk(0, 1, 2)) == str(first(0))
    assert traces.close(chunk(1, 3)) == ""


async def test_a_chunk_that_is_driven_again_stays_in_its_trace(tracer: Tracer, kept: KeptSpans) -> None:
    """Breaks: the second way of a chunk is nowhere to be found from the first one."""

    class Log:
        """A connection that has one `recorded` event."""

        published: Message

        def __init__(self) -> None:
            self.tracer = tracer

        async def get(self, stream: str, seq: int) -> Message | None:
            return Message("recorded", b"", {"traceparent": str(first(0))}, seq)

        async def publish(self, subject: str, data: bytes, headers: Any, msg_id: str) -> PubAck:
            self.published = Message(subject, data, headers)
            return PubAck(8, False)

    log: Any = Log()
    created: Any = SimpleNamespace(id="s-1", uid=UID, run=1)
    await redrive(log, created, [3], {3: 7})
    found = TraceContext.parse(log.published.headers["traceparent"])
    (span,) = kept.spans
    assert found == (first(0).trace_id, span.span_id, True)
    assert (span.parent_id, span.facts["lucid.run"]) == (first(0).span_id, 1)
