"""Traces in a real Jaeger: replay, scrub, export and dead letters are found from their chunk and session."""

import asyncio
import json
import os
import secrets
from pathlib import Path

import pytest

from schemas import subjects
from schemas.format import file_names
from schemas.telemetry.trace_context import TraceContext, stretch_trace
from streams.roles.drivers import connected
from tests.support.program.chunk_contexts import traces_of
from tests.support.program.installation import Installation, until
from tests.support.servers.jaeger import Seen, Traces

SESSION = "old"


@pytest.fixture(scope="module")
def chunks(
    system: Installation, traces: Traces, tmp_path_factory: pytest.TempPathFactory
) -> list[TraceContext]:
    """The traces of the chunks of a sealed session."""
    source = tmp_path_factory.mktemp("source") / "source"
    source.write_bytes(os.urandom(600_000))
    exporting = {"OTEL_EXPORTER_OTLP_ENDPOINT": traces.otlp_url}
    system.record(source, SESSION, CHUNK_SIZE_MB="0.25", **exporting)
    found = traces_of(system, SESSION, subjects.STORED)
    assert len(found) > 1
    return found


def session_trace(system: Installation) -> str:
    return str(system.show(SESSION)["uid"])


def seen(traces: Traces, trace_id: str, name: str, count: int = 1) -> list[Seen]:
    """The spans of this name in a trace, once there are so many."""

    def found() -> list[Seen]:
        return [span for span in traces.spans(trace_id) if span.name == name]

    until(lambda: len(found()) >= count, f"{name} in {trace_id}")
    return found()


def test_a_replay_is_in_the_traces_of_its_chunks(
    system: Installation, traces: Traces, chunks: list[TraceContext]
) -> None:
    """Breaks: from a chunk nobody sees that it was made again later, nor with which result."""
    done = system("replay", SESSION, OTEL_EXPORTER_OTLP_ENDPOINT=traces.otlp_url)
    assert done.status == 0, str(done)
    (whole,) = seen(traces, session_trace(system), "replay session")
    assert (whole.service, whole.facts["lucid.outcome"], whole.facts["lucid.replay"]) == (
        "lucid-replay",
        "true",
        True,
    )
    assert {trace for trace, _ in whole.links} == {one.trace_id for one in chunks}
    for context in chunks:
        (again,) = seen(traces, context.trace_id, "replay chunk")
        assert again.parent_id == context.span_id
        assert (again.facts["lucid.replay"], again.facts["lucid.outcome"]) == (True, "same")
        assert (whole.trace_id, whole.span_id) in again.links
        (source,) = [
            one for one in seen(traces, context.trace_id, "recompute chunk") if one.parent_id == again.span_id
        ]
        assert source.facts["lucid.fragments"] >= 1


def test_the_scrub_is_in_the_trace_of_the_session_and_its_repair_in_that_of_the_chunk(
    system: Installation, traces: Traces, chunks: list[TraceContext]
) -> None:
    """Breaks: nobody sees when a session was proven again, or which chunk was repaired then."""
    uid = session_trace(system)
    stored = system.data / "chunks" / file_names.stored_chunk(bytes.fromhex(uid), 0)
    whole = bytearray(stored.read_bytes())
    whole[-1] ^= 1
    stored.unlink()
    stored.write_bytes(whole)
    done = system("scrub", SESSION)
    assert done.status == 0, str(done)

    def found_it() -> list[Seen]:
        return [one for one in seen(traces, uid, "prove session") if one.facts["lucid.faults"]]

    until(found_it, "the span of the proof")
    (proof,) = found_it()
    assert proof.facts["lucid.chunks"] >= len(chunks)
    assert proof.facts["lucid.faults"] == 1
    repaired = [
        span
        for one in chunks
        for span in traces.spans(one.trace_id)
        if (proof.trace_id, proof.span_id) in span.links
    ]
    assert [span.facts["lucid.outcome"] for span in repaired] == ["restored"]


def test_an_export_is_in_the_trace_of_the_session(
    system: Installation, traces: Traces, chunks: list[TraceContext], tmp_path: Path
) -> None:
    """Breaks: nobody sees how long the export of a recording took."""
    out = tmp_path / "out"
    done = system("export", SESSION, "--out", out, OTEL_EXPORTER_OTLP_ENDPOINT=traces.otlp_url)
    assert done.status == 0, str(done)
    (export,) = seen(traces, session_trace(system), "export session")
    assert (export.service, export.facts["lucid.bytes"]) == ("lucid-export", out.stat().st_size)
    assert export.facts["lucid.action"] == "export"


def published(system: Installation, subject: str, data: bytes, above: TraceContext) -> None:
    async def publish() -> None:
        async with connected(system.nats_url, "test") as jet:
            await jet.publish(subject, data, headers={"traceparent": str(above)})

    asyncio.run(publish())


def dead_letters(system: Installation, session: str) -> list[TraceContext]:
    """The contexts of the dead letters under a session's name."""

    async def read() -> list[str]:
        async with connected(system.nats_url, "test") as jet:
            found = jet.read_all(subjects.DEAD, subjects.dead("*", session))
            return [message.headers.get("traceparent", "") async for message in found]

    contexts = [TraceContext.parse(one) for one in asyncio.run(read())]
    assert None not in contexts
    return [one for one in contexts if one is not None]


def begun() -> TraceContext:
    return TraceContext(secrets.token_hex(16), secrets.token_hex(8), True)


def test_a_dead_letter_is_in_the_trace_of_its_message(system: Installation, traces: Traces) -> None:
    """Breaks: from a dead letter nobody finds the work that failed, nor from a trace that it ended so."""
    above = begun()
    published(system, subjects.chunk(subjects.CHUNKED, "hopeless"), b"no event", above)
    until(lambda: dead_letters(system, "hopeless"), "the dead letter")
    (letter,) = dead_letters(system, "hopeless")
    assert letter.trace_id == above.trace_id
    (span,) = seen(traces, above.trace_id, "publish lucid.dead")
    (failed,) = seen(traces, above.trace_id, "process chunk.compress")
    assert span.span_id == letter.span_id
    assert (span.parent_id, failed.parent_id) == (failed.span_id, above.span_id)
    assert (span.facts["lucid.stage"], failed.error != "") == ("compress", True)
    assert span.facts["lucid.code"] == failed.facts["error.type"]


def test_a_refused_fragment_is_in_the_trace_that_its_host_began(system: Installation, traces: Traces) -> None:
    """Breaks: of a fragment that its host sent in vain, the trace ends with the sending."""
    recording = system.started("record", "--input", "-", "--session", "offended", "--json")
    assert recording.stdin is not None
    recording.stdin.write(b"begun")
    recording.stdin.flush()
    until(lambda: system("sessions", "show", "offended").status == 0, "the session")
    shown = system.until("offended", lambda found: found["state"] == "ACTIVE")
    above = begun()._replace(trace_id=stretch_trace(bytes.fromhex(shown["uid"]), 0).hex())
    published(system, subjects.recording(shown["host"], "offended"), b"no fragment", above)
    until(lambda: dead_letters(system, "offended"), "the dead letter")
    (refused,) = system.show("offended")["refused"]
    assert refused["trace_id"] == above.trace_id
    assert f"trace {above.trace_id}" in system("sessions", "show", "offended").out
    (span,) = seen(traces, above.trace_id, "publish lucid.dead")
    assert (span.parent_id, span.facts["lucid.stage"]) == (above.span_id, "record")
    out, err = recording.communicate()
    assert recording.returncode == 0, out + err
    assert json.loads(out)
