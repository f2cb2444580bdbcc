"""A host names the traces of its fragments as it likes, against the real stage `record` and a real server."""

import asyncio
import json

import pytest

from infra.jetstream import Jet
from infra.telemetry.metrics import Meter
from schemas import subjects
from schemas.telemetry.trace_context import FIRST_KEY, TraceContext, chunk_trace, span_of, stretch_trace
from streams.pipeline.record import trace_quota
from tests.support.pipeline.kept_spans import KeptSpans
from tests.support.pipeline.prepared import Prepared
from tests.support.pipeline.record_stage import TWO_CHUNKS, begin, dead, ended, known, record_stage

MANY = [("data", 1000), ("pause", 0)] * 12
"""Twelve chunks and the rest."""


def first(uid: bytes, number: int) -> TraceContext:
    """The context of the fragment that begins a host's expected chunk."""
    trace = stretch_trace(uid, number).hex()
    return TraceContext(trace, span_of(trace, FIRST_KEY), True)


async def send(jet: Jet, prepared: Prepared, traces: dict[int, str]) -> None:
    """Send all fragments. traces: traceparents by number."""
    for number, fragment in enumerate(prepared.fragments):
        await jet.publish(prepared.subject, fragment, {"traceparent": traces.get(number, "")})


async def contexts_of(jet: Jet, prepared: Prepared) -> list[TraceContext]:
    """The contexts of the session's chunks."""
    subject = subjects.chunk(subjects.RECORDED, prepared.session)
    named = [m.headers.get("traceparent", "") async for m in jet.read_all(subjects.CHUNKS, subject)]
    return [context for context in map(TraceContext.parse, named) if context is not None]


async def test_a_host_writes_into_no_trace_of_another_session(jet: Jet) -> None:
    """Breaks: a hostile host puts its spans into the trace of a recording that is to be investigated."""
    victim, hostile = Prepared("victim", 1, TWO_CHUNKS), Prepared("hostile", 2, TWO_CHUNKS)
    await begin(jet, victim, hostile)
    honest = {0: str(first(victim.uid, 0)), 3: str(first(victim.uid, 1))}
    forged = {0: honest[0], 3: str(TraceContext(victim.uid.hex(), "f" * 16, True)), 4: honest[3]}
    kept = KeptSpans()
    jet.tracer = kept.tracer()
    async with record_stage(jet):
        await asyncio.gather(send(jet, victim, honest), send(jet, hostile, forged))
        await asyncio.gather(ended(jet, victim), ended(jet, hostile))
    assert [one.trace_id for one in await contexts_of(jet, victim)] == [
        stretch_trace(victim.uid, number).hex() for number in (0, 1)
    ]
    assert [one.trace_id for one in await contexts_of(jet, hostile)] == [
        chunk_trace(hostile.uid, index).hex() for index in (0, 1)
    ]
    spoiling = [span for span in kept.spans if span.facts["lucid.session.id"] == hostile.session]
    assert [span.parent_id for span in spoiling] == ["", ""]
    assert {trace for span in spoiling for trace, _ in span.links} >= {text[3:35] for text in forged.values()}
    assert len({span.span_id for span in kept.spans}) == len(kept.spans) == 4


async def test_a_refused_fragment_writes_into_no_trace_of_another_session(jet: Jet) -> None:
    """Breaks: a message that is no fragment puts a span into any trace, under any name."""
    prepared, kept = Prepared("refused", 1, TWO_CHUNKS), KeptSpans()
    await begin(jet, prepared)
    jet.tracer = kept.tracer()
    stray = subjects.recording("host-2", prepared.session)
    async with record_stage(jet) as stage:
        await known(stage, prepared)
        for trace in (first(bytes(16), 0), first(prepared.uid, 1)):
            await jet.publish(prepared.subject, b"garbage", {"traceparent": str(trace)})
        await jet.publish(stray, b"garbage", {"traceparent": str(first(prepared.uid, 0))})
        await send(jet, prepared, {})
        await ended(jet, prepared)
        await dead(jet, prepared, 3)
    letters = [span for span in kept.spans if span.name == "publish lucid.dead"]
    assert [span.trace_id for span in letters] == [first(prepared.uid, 1).trace_id]


async def test_a_host_that_samples_everything_fills_no_queue(
    jet: Jet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: one hostile host, with a chunk for each fragment, drives all other spans out of the queues."""
    monkeypatch.setattr(trace_quota, "BURST", 4)
    monkeypatch.setattr(trace_quota, "CHUNKS_PER_S", 1e-3)
    prepared, kept, meter = Prepared("flood", 1, MANY), KeptSpans(), Meter("worker")
    await begin(jet, prepared)
    jet.tracer = kept.tracer()
    async with record_stage(jet, meter=meter):
        await send(jet, prepared, {n: str(first(prepared.uid, n)) for n in range(len(prepared.fragments))})
        await ended(jet, prepared)
    contexts = await contexts_of(jet, prepared)
    assert [one.sampled for one in contexts] == [True] * 4 + [False] * (len(contexts) - 4)
    assert len(kept.spans) == 4
    families = json.loads(meter.sample())["families"]
    (told,) = (family["samples"] for family in families if family["name"] == "lucid_traces_left_out")
    assert [value for _, _, value, _ in told] == [len(contexts) - 4]
