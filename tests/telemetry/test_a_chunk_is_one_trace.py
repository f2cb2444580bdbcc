"""Traces in a real Jaeger: each chunk of a session is one trace, from its host to the store."""

import asyncio
import os
import subprocess
from pathlib import Path

import psutil

from schemas import subjects
from schemas.telemetry.trace_context import TraceContext
from streams.roles.drivers import connected
from tests.support.program.chunk_contexts import traces_of
from tests.support.program.installation import WAIT_S, Installation, until
from tests.support.servers.jaeger import Seen, Traces

STAGES = ["record", "chunk", "compress", "encrypt", "merkle", "store"]
BLOCKS = 8
BLOCK = os.urandom(256 << 10)
PUBLISH, SPAN = "publish lucid.rec", "process chunk.{}"


def worker(system: Installation) -> psutil.Process:
    assert system.process is not None
    children = psutil.Process(system.process.pid).children()
    return next(child for child in children if {"serve", "worker"} <= set(child.cmdline()))


def feed(recording: "subprocess.Popen[bytes]", blocks: int) -> None:
    assert recording.stdin is not None
    for _ in range(blocks):
        recording.stdin.write(BLOCK)
        recording.stdin.flush()


def one_line(spans: list[Seen]) -> list[Seen]:
    """The spans from the trace's first to that of `store`, each the parent of the next one."""
    by_id = {span.span_id: span for span in spans}
    (last,) = {span.span_id: span for span in spans if span.name == SPAN.format("store")}.values()
    line = [last]
    while line[0].parent_id:
        line.insert(0, by_id[line[0].parent_id])
    return line


def staged(traces: Traces, context: TraceContext, *more: str) -> bool:
    """Whether the trace has spans of all stages, and those named."""
    names = {span.name for span in traces.spans(context.trace_id)}
    return names >= {*more, *(SPAN.format(stage) for stage in STAGES)}


async def until_it_moved(system: Installation, worker: psutil.Process) -> None:
    """Let a stopped worker go on until it sends an event, and stop it again."""
    async with connected(system.nats_url, "test") as jet, asyncio.timeout(WAIT_S):
        before = (await jet.info(subjects.CHUNKS)).last_seq
        worker.resume()
        while (await jet.info(subjects.CHUNKS)).last_seq == before:  # noqa: ASYNC110 - from outside
            await asyncio.sleep(0.001)
        worker.suspend()


def half_done(system: Installation, session: str) -> set[str]:
    """The traces of chunks that a stopped worker recorded and cannot store any more.

    What it sent, and the server has not read yet, moves a chunk by one stage.
    """
    recorded = {one.trace_id for one in traces_of(system, session, subjects.RECORDED)}
    return recorded - {one.trace_id for one in traces_of(system, session, subjects.PROVEN)}


def orphans(spans: list[Seen]) -> list[Seen]:
    """The spans whose parent is not there."""
    there = {span.span_id for span in spans}
    return [span for span in spans if span.parent_id and span.parent_id not in there]


def test_each_chunk_is_one_trace_though_the_worker_is_killed(system: Installation, traces: Traces) -> None:
    """Breaks: nobody can tell why a chunk took long: its trace has holes, or is two, after each crash."""
    command = ("record", "--input", "-", "--session", "killed", "--json")
    recording = system.started(*command, CHUNK_SIZE_MB="0.25", OTEL_EXPORTER_OTLP_ENDPOINT=traces.otlp_url)
    feed(recording, BLOCKS)
    until(lambda: len(traces_of(system, "killed", subjects.STORED)) > 1, "two are stored", every_s=0.05)
    victim, half = worker(system), set[str]()
    fed = BLOCKS
    while not half:
        victim.suspend()
        feed(recording, BLOCKS)  # its last blocks reach the server while the worker goes on
        fed += BLOCKS
        asyncio.run(until_it_moved(system, victim))
        half = half_done(system, "killed")
    where = system.json("sessions", "where", "killed")
    assert half <= {one["trace_id"] for one in where["chunks"] if one["stage"] != "stored"}
    victim.kill()
    feed(recording, BLOCKS)
    out, err = recording.communicate()
    assert recording.returncode == 0, out + err
    stored = traces_of(system, "killed", subjects.STORED)
    assert len({one.trace_id for one in stored}) == len(stored) >= fed + BLOCKS
    assert half <= {one.trace_id for one in stored}
    uid, indices = system.show("killed")["uid"], []
    for context in stored:
        until(lambda context=context: staged(traces, context, PUBLISH), f"spans of {context}")
        until(lambda context=context: not orphans(traces.spans(context.trace_id)), f"no orphan in {context}")
        spans = traces.spans(context.trace_id)
        line = one_line(spans)
        assert [span.name for span in line] == [PUBLISH, *(SPAN.format(stage) for stage in STAGES)]
        assert [span.service for span in line] == ["lucid-host", *["lucid-worker"] * len(STAGES)]
        assert line[-1].span_id == context.span_id
        record, *rest = line[1:]
        assert {span.facts["lucid.session.id"] for span in line} == {"killed"}
        (index,) = {span.facts["lucid.chunk.index"] for span in line[1:]}
        assert [span.facts["lucid.stage"] for span in line[1:]] == STAGES
        assert all(span.facts["lucid.attempt"] >= 1 for span in rest)
        assert uid in {trace for trace, _ in record.links}
        workers = {span.instance for span in spans if span.service == "lucid-worker"}
        assert len(workers) == 2 or context.trace_id not in half
        indices.append(index)
    assert sorted(indices) == list(range(len(stored)))
    until(lambda: seals(traces, uid), "the seal's span")
    (links,) = {span.links for span in seals(traces, uid)}
    assert sorted(links) == sorted((one.trace_id, one.span_id) for one in stored)


def seals(traces: Traces, uid: str) -> list[Seen]:
    return [span for span in traces.spans(uid) if span.name == "seal session"]


def test_without_traces_on_its_host_a_chunk_begins_its_trace_at_the_platform(
    system: Installation, traces: Traces, tmp_path: Path
) -> None:
    """Breaks: recordings of hosts without traces are not in Jaeger at all."""
    source = tmp_path / "source"
    source.write_bytes(os.urandom(600_000))
    system.record(source, "untraced", CHUNK_SIZE_MB="0.25")
    stored = traces_of(system, "untraced", subjects.STORED)
    assert len({one.trace_id for one in stored}) == len(stored) > 1
    for context in stored:
        until(lambda context=context: staged(traces, context), f"spans of {context}")
        line = one_line(traces.spans(context.trace_id))
        assert [span.name for span in line] == [SPAN.format(stage) for stage in STAGES]
        assert not line[0].parent_id


def test_a_trace_that_its_host_does_not_keep_is_kept_nowhere(
    system: Installation, traces: Traces, tmp_path: Path
) -> None:
    """Breaks: a host that keeps one trace of a thousand fills Jaeger with halves of the others."""
    source = tmp_path / "source"
    source.write_bytes(os.urandom(600_000))
    off = {"OTEL_TRACES_SAMPLER": "parentbased_always_off", "OTEL_EXPORTER_OTLP_ENDPOINT": traces.otlp_url}
    system.record(source, "unsampled", CHUNK_SIZE_MB="0.25", **off)
    stored = traces_of(system, "unsampled", subjects.STORED)
    assert len(stored) > 1
    assert not any(one.sampled for one in stored)
    # the next session's spans come after those that must not come
    system.record(source, "sampled", CHUNK_SIZE_MB="0.25")
    (first, *_) = traces_of(system, "sampled", subjects.STORED)
    until(lambda: staged(traces, first), "spans of the sampled session")
    assert [traces.spans(one.trace_id) for one in stored] == [[]] * len(stored)
