"""The page of measurements of a system that runs, as Prometheus reads it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open_metrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from infra.disk.data_dir import DataDir
from infra.nats_server.server import NatsServer
from infra.processes.machine import own_host
from tests.api.conftest import Served, environment, system
from tests.api.test_a_recording import recorded
from tests.api.test_five_services import serving
from tests.support.machine.ports import free_port
from tests.support.machine.waiting import PATIENCE_S

OPEN_METRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}
Found = dict[tuple[str, ...], float]


def metrics(client: httpx.Client) -> Found:
    """Every sample by its name and the values of its labels, in the order of their names."""
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in read_text(answer.text)
        for sample in family.samples
    }


def until(client: httpx.Client, **wanted: tuple[tuple[str, ...], float | None]) -> Found:
    """The page on which all wanted samples have their values. None: it is not there."""
    end_s = time.monotonic() + PATIENCE_S
    while True:
        found = metrics(client)
        if all(found.get(sample) == value for sample, value in wanted.values()):
            return found
        assert time.monotonic() < end_s, {name: found.get(sample) for name, (sample, _) in wanted.items()}
        time.sleep(0.3)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A system that no other file uses: its counts are ours."""
    with system(tmp_path_factory.mktemp("measured") / "data") as running:
        yield running


@pytest.fixture
def client(own: Served) -> Iterator[httpx.Client]:
    with own.client() as client:
        yield client


def test_the_page_tells_of_a_recording_in_every_stage(tmp_path: Path) -> None:
    """Breaks: the people on call see no chunk, no byte and no time of a stage."""
    with system(tmp_path / "data") as running, running.client() as client:
        recorded(client, "measured", 1)
        chunks = len(client.get("/api/v1/sessions/measured/chunks").json()["chunks"])
        stages = ("record", "chunk", "compress", "encrypt", "merkle", "store")
        wanted = {stage: (("lucid_stage_chunks_total", "worker", stage), chunks) for stage in stages}
        sealed = (("lucid_sessions", "conductor", "STOPPED"), 1)
        timed = (("lucid_chunk_seconds_count", "worker"), chunks)
        found = until(client, **wanted, sealed=sealed, timed=timed)
        assert chunks > 0
        for stage in stages:
            assert found["lucid_stage_dead_letters_total", "worker", stage] == 0
            assert found["lucid_stage_bytes_total", "worker", stage] > 0 or stage == "merkle"
        assert found["lucid_stage_seconds_count", "worker", "store"] == chunks


def test_both_formats_are_valid_and_name_no_session(client: httpx.Client) -> None:
    """Breaks: Prometheus refuses the page, or the names of sessions stand open to everybody."""
    recorded(client, "not-on-the-page", 1)
    answer = client.get("/metrics", headers=OPEN_METRICS)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    names = [family.name for family in read_open_metrics(answer.text)]
    assert len(names) == len(set(names))
    assert set(names) >= {name for name in names if name.startswith("lucid_")}
    for page in (answer.text, client.get("/metrics").text):
        assert "not-on-the-page" not in page
        samples = [line.rsplit(" ", 1)[0] for line in page.splitlines() if not line.startswith("#")]
        assert len(samples) == len(set(samples))


def test_requests_are_counted_by_template_and_errors_by_code(client: httpx.Client) -> None:
    """Breaks: a rise of errors has no place, or a client makes a series for each name that it tries."""
    route, method = "/api/v1/sessions/{session_id}", "GET"
    counted = ("lucid_http_requests_total", method, "http", route, "4xx")
    absent = ("lucid_errors_total", "session.absent", "http")
    unknown = ("lucid_http_requests_total", method, "http", "unknown", "4xx")
    before = metrics(client)
    for number in range(3):
        assert client.get(f"/api/v1/sessions/none-{number}").status_code == 404
        assert client.get(f"/nowhere/{number}").status_code == 404
    wanted = {"route": (counted, before.get(counted, 0) + 3), "code": (absent, before.get(absent, 0) + 3)}
    found = until(client, **wanted, unknown=(unknown, before.get(unknown, 0) + 3))
    assert found["lucid_http_request_seconds_count", method, "http", route] >= 3
    assert not [sample for sample in found if "none-1" in sample]


def test_the_installation_is_measured_whole(client: httpx.Client) -> None:
    """Breaks: a full stream or disk, a lag or a silent host is seen by nobody before it hurts."""
    found = until(client, lag=(("lucid_stage_lag", "conductor", "store"), 0))
    for stream in ("RECORDINGS", "CHUNKS", "LIFECYCLE", "DEAD", "OPEN", "AUDIT"):
        assert found["lucid_stream_bytes", "conductor", stream] >= 0
        assert found["lucid_stream_limit_bytes", "conductor", stream] > 0
    assert found["lucid_disk_free_bytes", "data", "conductor"] > 0
    assert (
        found["lucid_disk_free_bytes", "data", "conductor"]
        <= found["lucid_disk_size_bytes", "data", "conductor"]
    )
    assert found["lucid_disk_hours_to_full", "data", "conductor"] > 0
    assert found["lucid_workers",] == 1
    assert found["lucid_hosts_silent", "conductor"] == 0
    assert found["lucid_credit_limit_bytes", "fast", "worker"] > 0
    assert {"running", "paused", "finishing"} == {one[2] for one in found if one[0] == "lucid_pipelines"}
    assert found["lucid_child_starts_total", "worker", "up"] == 1


@contextmanager
def stopped(data: Path, role: str) -> Iterator[None]:
    """A child of the system that hangs for the time of the block."""
    run = DataDir(data).read_run()
    assert run is not None
    children = psutil.Process(run["pid"]).children()
    (child,) = [one for one in children if "serve" in one.cmdline() and role in one.cmdline()]
    os.kill(child.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(child.pid, signal.SIGCONT)


def test_a_process_that_hangs_is_shown_as_down_and_hides_no_other(tmp_path: Path) -> None:
    """Breaks: one process that hangs takes the whole page with it, or is not missed."""
    with system(tmp_path / "data") as running, running.client() as client:
        everybody = {"conductor", "http", "up", "worker"}
        ups = {name: (("lucid_process_up", name), 1) for name in everybody}
        until(client, **ups)
        for hanging in ("worker", "conductor"):
            with stopped(tmp_path / "data", hanging):
                found = until(client, **ups | {hanging: (("lucid_process_up", hanging), 0)})
                assert not [one for one in found if one[0] == "lucid_stage_workers" and hanging == "worker"]
            until(client, **ups)


def test_a_chunk_that_is_traced_is_an_exemplar(tmp_path: Path) -> None:
    """Breaks: a dashboard shows slow chunks, and leads to the trace of none."""
    nobody = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}  # spans are made, and go nowhere
    with system(tmp_path / "data", **nobody) as running, running.client() as client:
        recorded(client, "traced", 1)
        until(client, stored=(("lucid_sessions", "conductor", "STOPPED"), 1))
        page = client.get("/metrics", headers=OPEN_METRICS).text
        families = {family.name: family for family in read_open_metrics(page)}
        for name in ("lucid_chunk_seconds", "lucid_stage_seconds"):
            found = [one.exemplar.labels for one in families[name].samples if one.exemplar]
            assert found
            assert all(re.fullmatch("[0-9a-f]{32}", labels["trace_id"]) for labels in found)


def started(role: str, settings: dict[str, str]) -> "subprocess.Popen[bytes]":
    command = (sys.executable, "-P", "-m", "streams.cli.main", "serve", role, "--port", str(free_port()))
    return subprocess.Popen(command, env=settings)


async def test_a_process_that_ends_in_order_leaves_the_page_and_one_that_is_killed_does_not(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: each planned stop is an alert, or a crash is none."""
    settings = environment(tmp_path / "data") | {"NATS_URL": server.url, "NATS_MAX_STORAGE_MB": "1024"}
    name = f"storage@{own_host()}"
    up = (("lucid_process_up", name), 1)
    with serving("processor", free_port(), settings) as url, httpx.Client(base_url=url) as client:
        with serving("storage", free_port(), settings):
            until(client, storage=up)
        until(client, storage=(up[0], None), silent=(("lucid_processes_missing", "silent"), 0))
        killed = started("storage", settings)
        until(client, storage=up)
        killed.kill()
        killed.wait()
        until(client, storage=(up[0], 0), silent=(("lucid_processes_missing", "silent"), 1))
