"""Each unhappy state of a service, made by what really breaks: servers, disks, folders, workers."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from infra.nats_server.server import NatsServer
from tests.api.conftest import environment, system
from tests.api.test_a_recording import SESSIONS
from tests.api.test_five_services import serving
from tests.support.machine.absent import absent
from tests.support.machine.ports import free_port
from tests.support.machine.small_disk import small_disk
from tests.support.machine.waiting import PATIENCE_S
from tests.support.servers.secantus import secantus

Seen = dict[str, str]


def seen(url: str) -> tuple[int, Seen, dict[str, Any]]:
    """Status of /ready, the state of each part, and the whole body."""
    answer = httpx.get(f"{url}/ready", timeout=PATIENCE_S)
    assert httpx.get(f"{url}/health", timeout=PATIENCE_S).status_code == 200, "it is alive all the same"
    body = answer.json()
    states = {name: one["state"] for name, one in body["dependencies"].items()}
    assert (answer.status_code == 200) == (set(states.values()) == {"ok"}), body
    return answer.status_code, states, body


def until(url: str, wanted: Callable[[Seen], bool]) -> dict[str, Any]:
    """The body of /ready, once the states of its parts are as wanted."""
    end_s = time.monotonic() + PATIENCE_S
    while True:
        _, states, body = seen(url)
        if wanted(states):
            return body
        assert time.monotonic() < end_s, body
        time.sleep(0.2)


def fetched(url: str, **headers: str) -> Any:
    """The body of an answer."""
    return httpx.get(url, headers=headers, timeout=PATIENCE_S).json()


def is_ready(states: Seen) -> bool:
    return set(states.values()) == {"ok"}


def of_server(server: NatsServer, data: Path) -> dict[str, str]:
    return environment(data) | {"NATS_URL": server.url, "NATS_MAX_STORAGE_MB": "1024"}


async def test_lone_roles_are_ready_without_a_pipeline_and_not_without_what_they_need(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: an orchestrator never starts a store that runs alone, or sends requests to one without keys."""
    data = tmp_path / "data"
    with ExitStack() as running:
        storage, processor = (
            running.enter_context(serving(role, free_port(), of_server(server, data)))
            for role in ("storage", "processor")
        )
        for url in (storage, processor):
            assert set(until(url, is_ready)["dependencies"]) == {"nats", "chunks", "keys"}
        (data / "keys").rename(data / "away")
        assert until(storage, lambda states: states["keys"] != "ok")["status"] == "degraded"
        (data / "away").rename(data / "keys")
        until(storage, is_ready)
        shutil.rmtree(data / "chunks")
        found = until(storage, lambda states: states["chunks"] != "ok")["dependencies"]
        assert (found["chunks"]["state"], found["keys"]["state"]) == ("disk.unwritable", "ok")
        (data / "chunks").mkdir()
        until(storage, is_ready)
        await server.stop()
        found = until(storage, lambda states: states["nats"] != "ok")["dependencies"]
        assert {name for name, one in found.items() if one["state"] == "ok"} == {"chunks", "keys"}
        await server.start()  # for the end of the services
        until(storage, is_ready)


async def test_a_full_disk_of_chunks_is_told_before_a_chunk_meets_it(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: chunks are sent to a store that can take none."""
    with small_disk(tmp_path, 256 << 20, "tmpfs") as disk:
        if disk is None:
            absent("a small tmpfs", "run as root")
        assert disk is not None
        settings = of_server(server, tmp_path / "data") | {"CHUNK_STORAGE_PATH": str(disk.path / "chunks")}
        with serving("storage", free_port(), settings) as url:
            until(url, is_ready)
            for fill in (lambda: disk.fill(leave=1 << 20), disk.fill_up):
                fill()
                until(url, lambda states: states["chunks"] == "disk.full")
                disk.empty()
                until(url, is_ready)


async def test_keys_of_an_auth_service_that_never_came_are_told(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: requests go to a service that can verify no token."""
    settings = of_server(server, tmp_path / "data") | {"JWT_JWKS_URL": f"http://127.0.0.1:{free_port()}/keys"}
    with serving("storage", free_port(), settings) as url:
        assert seen(url)[1]["auth"] == "access.keys"


async def test_a_pipeline_tells_that_its_read_models_are_gone(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: every list fails, and readiness says that all is well."""
    with ExitStack() as running:
        mongodb = running.enter_context(secantus(tmp_path / "mongodb"))
        settings = of_server(server, tmp_path / "data") | {"MONGODB_URL": f"{mongodb.url}/health"}
        pipeline = running.enter_context(serving("pipeline", free_port(), settings | {"METRICS_PORT": "0"}))
        until(pipeline, is_ready)
        storage = running.enter_context(serving("storage", free_port(), settings))
        nobody = f"http://127.0.0.1:{free_port()}"
        named = {"SESSION_STORAGE_URL": storage, "SESSION_RECORDER_URL": nobody}
        api = running.enter_context(serving("api", free_port(), settings | named))
        others = {"session-storage": "ok", "session-recorder": "service.unreachable"}
        states = seen(api)[1]
        assert {name: state for name, state in states.items() if name.startswith("session-")} == others
        asked = fetched(f"{api}/health")["dependencies"]
        assert not others.keys() & asked.keys(), "services that ask each other would never end"
        bearer = f"Bearer {(tmp_path / 'data' / 'admin.token').read_text().strip()}"
        told = fetched(f"{pipeline}/status", Authorization=bearer)["services"]
        assert told["pipeline"] == {"url": pipeline, "health": "ok"}
        assert set(told) == {"recorder", "pipeline", "processor", "storage", "api"}
        os.kill(mongodb.pid, signal.SIGKILL)
        found = until(pipeline, lambda states: states["views"] != "ok")["dependencies"]
        assert found["nats"]["state"] == "ok"


def test_a_worker_that_is_stopped_and_the_stage_that_stands_still_are_named(tmp_path: Path) -> None:
    """Breaks: nothing is stored any more, and whoever is on call is not told where to look."""
    with system(tmp_path / "data", STAGE_STALLED="2") as running, running.client() as client:
        until(running.url, is_ready)
        worker = worker_of(running.data)
        assert client.post(SESSIONS, json={"id": "stands"}).status_code == 201
        assert client.post(f"{SESSIONS}/stands/start").json()["status"] == "ACTIVE"
        os.kill(worker, signal.SIGSTOP)
        try:
            sent = client.post("/pipelines/stands/chunks", content=bytes(300_000))
            assert sent.status_code == 200, sent.text
            found = until(running.url, lambda states: states["stages"] == "stage.stalled")["dependencies"]
            assert found["stages"]["names"] == "record"
            found = until(running.url, lambda states: states["workers"] != "ok")["dependencies"]
            assert found["workers"]["names"] == ", ".join(map(str, range(16)))
        finally:
            os.kill(worker, signal.SIGCONT)
        until(running.url, is_ready)


def worker_of(data: Path) -> int:
    """The process that runs the stages of this installation."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            has = f"LUCID_DATA={data}".encode() in (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if has and words[-5:-3] == [b"serve", b"worker"]:
            return int(folder.name)
    raise AssertionError("no worker runs")
