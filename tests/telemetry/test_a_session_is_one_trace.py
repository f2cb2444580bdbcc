"""Traces of `lucid up --jaeger`: the life of a session, and the requests that asked for it."""

import asyncio
import json
import os
import secrets
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.processes.jaeger import find_jaeger
from schemas import subjects
from schemas.telemetry.trace_context import TraceContext
from streams.roles.drivers import connected
from tests.support.machine.absent import absent
from tests.support.program.installation import Installation, Json, lucid, running, until
from tests.support.servers.jaeger import Seen, Traces

SOURCE = os.urandom(600_000)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    if find_jaeger() is None:
        absent("jaeger", "just services")
    with running(tmp_path_factory.mktemp("jaeger") / "data", "--jaeger") as installation:
        yield installation


@pytest.fixture(scope="module")
def traces(system: Installation) -> Traces:
    run = json.loads((system.data / "run.json").read_bytes())
    return Traces(run["otlp_url"], run["jaeger_url"])


@pytest.fixture(scope="module")
def recorded(system: Installation, tmp_path_factory: pytest.TempPathFactory) -> Json:
    """A sealed session; the recorder finds Jaeger through the running system."""
    source = tmp_path_factory.mktemp("source") / "source"
    source.write_bytes(SOURCE)
    return system.record(source, "lived", CHUNK_SIZE_MB="0.25")


def named(traces: Traces, trace_id: str, *names: str) -> dict[str, Seen]:
    """The spans of a trace by their names, once it has those."""
    until(lambda: {*names} <= {span.name for span in traces.spans(trace_id)}, f"{names} in {trace_id}")
    return {span.name: span for span in traces.spans(trace_id)}


def chunk_traces(system: Installation, session: str) -> set[str]:
    async def read() -> set[str]:
        async with connected(system.nats_url, "test") as jet:
            found = jet.read_all(subjects.CHUNKS, subjects.chunk(subjects.STORED, session))
            contexts = [TraceContext.parse(message.headers["traceparent"]) async for message in found]
        return {one.trace_id for one in contexts if one is not None}

    return asyncio.run(read())


def test_a_session_is_one_trace_that_links_its_chunks(
    system: Installation, traces: Traces, recorded: Json
) -> None:
    """Breaks: from a session nobody finds the traces of its chunks, nor how long its seal took."""
    uid = system.show("lived")["uid"]
    spans = named(traces, uid, "session Created", "session StartCompleted", "seal session", "session Sealed")
    first, seal = spans["session Created"], spans["seal session"]
    assert not first.parent_id
    assert {span.parent_id for span in spans.values()} == {"", first.span_id}
    assert {span.service for span in spans.values()} == {"lucid-conductor"}
    chunks = chunk_traces(system, "lived")
    assert {trace for trace, _ in seal.links} == chunks
    assert len(chunks) == recorded["recorded"] > 1
    for chunk in chunks:
        links = named(traces, chunk, "publish lucid.rec", "process chunk.record")[
            "process chunk.record"
        ].links
        assert (uid, first.span_id) in links


def asked(system: Installation, path: str, above: str, method: str = "POST", **body: Any) -> Json:
    """The answer of the API to one request."""
    url = json.loads((system.data / "run.json").read_bytes())["api_url"]
    headers = {
        "Authorization": f"Bearer {system.credential()}",
        "Content-Type": "application/json",
        "traceparent": above,
    }
    data = json.dumps(body).encode() if method == "POST" else None
    request = urllib.request.Request(f"{url}{path}", data, headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: Json = json.load(answer)
    return found


def test_a_request_is_in_the_trace_of_its_caller_and_its_command_below_it(
    system: Installation, traces: Traces
) -> None:
    """Breaks: a slow request of another system cannot be followed into this one."""
    above = TraceContext(secrets.token_hex(16), secrets.token_hex(8), True)
    session = asked(system, "/pipelines", str(above), name="asked")["session_id"]
    uid = system.show(session)["uid"]
    spans = named(traces, above.trace_id, "POST /pipelines", "command open")
    request, command = spans["POST /pipelines"], spans["command open"]
    assert (request.parent_id, command.parent_id) == (above.span_id, request.span_id)
    assert (request.service, command.service) == ("lucid-http", "lucid-conductor")
    assert request.facts["http.response.status_code"] == 201
    created = named(traces, uid, "session Created")["session Created"]
    assert (above.trace_id, command.span_id) in created.links


def test_up_without_a_jaeger_says_how_to_get_one(tmp_path: Path) -> None:
    """Breaks: `lucid up --jaeger` starts a system without traces, or ends without a reason."""
    said = lucid("up", "--jaeger", data=tmp_path / "data", cwd=tmp_path, JAEGER_BIN=str(tmp_path / "none"))
    assert said.status == 7
    assert "jaeger.no_binary" in said.err
    assert "just services" in said.err
    assert not (tmp_path / "data" / "run.json").exists()
