"""A server for traces that refuses, hangs or fails: recordings go on, and one line says so."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from infra.disk.data_dir import DataDir
from infra.telemetry import watched_exporter
from infra.telemetry.begin_traces import traced
from schemas.ports import NO_TRACES
from tests.support.machine.waiting import PATIENCE_S, until
from tests.support.program import installation as waiting
from tests.support.program.installation import VERB_S, Installation, running

WAYS = ("refuses", "hangs", "fails")
HOUR_S = "3600"
LINE = "traces_not_exported"


class Fails(BaseHTTPRequestHandler):
    """Answers each batch with a refusal."""

    def do_POST(self) -> None:
        self.send_error(400)

    def log_message(self, *_: object) -> None: ...


@contextmanager
def server(way: str) -> Iterator[str]:
    """The endpoint of a server that is away in this way."""
    if way == "fails":
        with ThreadingHTTPServer(("127.0.0.1", 0), Fails) as failing:
            threading.Thread(target=failing.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{failing.server_port}"
            failing.shutdown()
        return
    with socket.create_server(("127.0.0.1", 0)) as listening:  # it takes connections, and never answers
        port = listening.getsockname()[1]
        if way == "refuses":
            listening.close()
        yield f"http://127.0.0.1:{port}"


class Connection:
    """As much of a connection as `traced` sees."""

    tracer = NO_TRACES


@pytest.mark.parametrize("way", WAYS)
async def test_the_end_waits_a_moment_for_the_server_and_no_longer(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a service cannot be stopped while Jaeger hangs, and is killed with its work undone."""
    with server(way) as endpoint:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", HOUR_S)
        connection = Connection()
        async with asyncio.timeout(PATIENCE_S):
            async with traced(connection, "lucid-test", DataDir(tmp_path)):  # type: ignore[arg-type]
                assert connection.tracer.on
                for _ in range(5000):
                    connection.tracer.span("work").end()


@pytest.mark.parametrize("way", WAYS)
async def test_one_line_says_that_spans_are_lost(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Breaks: the log fills with the errors of a library while Jaeger is away, or says nothing at all."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    monkeypatch.setattr(watched_exporter, "WARN_S", float(HOUR_S))
    with server(way) as endpoint:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        connection = Connection()
        async with traced(connection, "lucid-test", DataDir(tmp_path)):  # type: ignore[arg-type]
            tracer = connection.tracer
            for lost in range(1, 4):
                tracer.span("work").end()
                await until(lambda lost=lost: tracer.dropped["export"] == lost)
    assert [record.name for record in caplog.records] == ["lucid.traces"]
    assert caplog.text.count(LINE) == 1
    assert endpoint.rpartition("/")[2] in caplog.text


@pytest.mark.parametrize("way", ["fails", "hangs"])
async def test_each_span_that_is_dropped_is_counted(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Breaks: a trace has holes, and nobody can tell whether spans were dropped, or never made."""
    variables = {"BSP_SCHEDULE_DELAY": "1", "BSP_MAX_QUEUE_SIZE": "8", "BSP_MAX_EXPORT_BATCH_SIZE": "4"}
    for name, value in {**variables, "EXPORTER_OTLP_TIMEOUT": HOUR_S}.items():
        monkeypatch.setenv(f"OTEL_{name}", value)
    with server(way) as endpoint:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        connection = Connection()
        async with traced(connection, "lucid-test", DataDir(tmp_path)):  # type: ignore[arg-type]
            tracer = connection.tracer
            for _ in range(100):
                tracer.span("work").end()
            if way == "hangs":  # one batch is under way for ever, at most, and the queue is full
                assert tracer.dropped["queue"] >= 100 - 8 - 4
                assert tracer.dropped["export"] == 0
            else:
                await until(lambda: sum(tracer.dropped.values()) == 100)
                assert tracer.dropped["export"] > 0
            assert LINE in caplog.text


def on_page(system: Installation) -> float:
    """Spans that all processes of a system have dropped, as its page tells."""
    url = json.loads((system.data / "run.json").read_bytes())["api_url"]
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics", timeout=VERB_S).text)
    return sum(
        s.value for family in families for s in family.samples if s.name == "lucid_spans_dropped_total"
    )


@pytest.mark.parametrize("way", ["refuses", "hangs"])
def test_a_recording_is_made_while_the_server_is_away(way: str, tmp_path: Path) -> None:
    """Breaks: the loss of a server that only shows traces costs evidence."""
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 4000)
    with server(way) as endpoint:
        away = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
        with running(tmp_path / "data", **away) as system:
            made = system.record(source, "lonely", CHUNK_SIZE_MB="0.25", **away)
            assert made["recorded"] > 1
            assert system("verify", "lonely").status == 0
            waiting.until(lambda: on_page(system) > 0, "the dropped spans on the page")
            log = system.log
        said = log.read_text()
    assert "Traceback" not in said
    assert "opentelemetry" not in said
    assert "urllib3" not in said
