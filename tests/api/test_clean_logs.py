"""The log of a system in which every personal field is filled, and everything goes wrong that may."""

import asyncio
import json
import os
import secrets
import signal
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from infra.disk.data_dir import DataDir
from infra.jetstream import connect
from schemas import subjects
from schemas.config.logs import MASK
from tests.api.conftest import Served, system
from tests.api.test_a_recording import JSON, SESSIONS, recorded, until
from tests.api.test_erased_for_good import PERSONAL, WORDS
from tests.support.machine.waiting import PATIENCE_S

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACED = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
HARMLESS_WORDS = {word.decode() for word in WORDS}


def run_of(data: Path) -> dict[str, Any]:
    run = DataDir(data).read_run()
    assert run is not None
    return run


def wrong_bodies() -> list[dict[str, Any]]:
    """Bodies with a personal word at each place where a body may be wrong."""
    rdp, metadata = PERSONAL["rdp_config"], PERSONAL["metadata"]
    assert isinstance(rdp, dict)
    assert isinstance(metadata, dict)
    return [
        PERSONAL | {"id": "zanzibar is no id"},
        PERSONAL | {"zanzibar-member": 1},
        PERSONAL | {"name": ["zanzibar"]},
        PERSONAL | {"rdp_config": rdp | {"port": "zanzibar"}},
        PERSONAL | {"rdp_config": rdp | {"username": "zanzibar\x00"}},
        PERSONAL | {"rdp_config": rdp | {"password": "zanzibar" * 100}},
        PERSONAL | {"metadata": metadata | {"tags": "zanzibar"}},
        PERSONAL | {"metadata": metadata | {"owner": {"zanzibar": 1}}},
        PERSONAL | {"metadata": metadata | {"priority": "zanzibar"}},
        PERSONAL | {"storage_config": {"encryption": "zanzibar"}},
    ]


def go_wrong(served: Served, client: httpx.Client) -> None:
    """Everything that a client can do with a personal word."""
    for body in wrong_bodies():
        assert client.post(SESSIONS, json=body).status_code == 422
    assert client.post(SESSIONS, content=b'{"name": "zanzibar', headers=JSON).status_code in (400, 422)
    assert client.get(SESSIONS, params={"owner": "zanzibar", "sort": "zanzibar"}).status_code == 422
    assert client.get("/zanzibar", params={"name": "zanzibar"}).status_code == 404
    assert client.post("/pipelines/nobody/chunks", content=b"zanzibar").status_code == 404
    for token in ("zanzibar", f"eyJhbGciOiJIUzI1NiJ9.{secrets.token_hex(20)}.zanzibar"):
        with served.client_with(token) as stranger:
            assert stranger.get(SESSIONS).status_code == 401


async def go_wrong_over_nats(url: str, token: str) -> None:
    """Commands of a client of NATS: not JSON, of no form, with members of a wrong kind."""
    jet = await connect(url, name="test", timeout_s=PATIENCE_S)
    bodies: list[Any] = [
        {"details": {"name": "zanzibar"}, "session": {"zanzibar": 1}},
        {"session": "zanzibar is no id", "details": PERSONAL},
        {"session": "person", "details": {"rdp": "zanzibar"}, "rdp_password": "zanzibar"},
    ]
    for name in ("open", "update", "create", "list", "details"):
        await jet.request(subjects.command(name), b'{"name": "zanzibar', PATIENCE_S)
        for body in bodies:
            raw = json.dumps(body | {"token": token}).encode()
            await jet.request(subjects.command(name), raw, PATIENCE_S)
    await jet.publish(subjects.chunk(subjects.RECORDED, "person"), b'{"session": "zanzibar"}')
    await jet.close()


def kill_the_worker(run: dict[str, Any]) -> None:
    children = psutil.Process(run["pid"]).children()
    (worker,) = [one for one in children if "worker" in one.cmdline()]
    os.kill(worker.pid, signal.SIGKILL)


def test_no_log_holds_a_personal_word_or_a_secret(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Breaks: whoever reads logs reads names, and can be somebody else with a token that stands in them."""
    data = tmp_path / "data"
    with system(data, LOG_LEVEL="DEBUG") as served, served.client() as client:
        run, token = run_of(data), (data / "admin.token").read_text().strip()
        assert client.post(SESSIONS, json=PERSONAL | {"id": "person"}, headers=TRACED).status_code == 201
        client.post(f"{SESSIONS}/person/start", headers=TRACED)
        client.post("/pipelines/person/chunks", content=bytes(300_000), headers=TRACED)
        go_wrong(served, client)
        asyncio.run(go_wrong_over_nats(run["nats_url"], token))
        kill_the_worker(run)
        client.post(f"{SESSIONS}/person/stop")
        until(client, "person", "STOPPED")
        recorded(client, "another", 1)
        assert client.delete(f"{SESSIONS}/person").json()["status"] == "DESTROYED"
        password = run["nats_url"].partition("://")[2].partition("@")[0]
        assert len(password.partition(":")[2]) > 10
        signing_key = (data / "jwt.key").read_text().strip()
    log = capfd.readouterr().err
    assert [line for line in log.splitlines() if any(word in line for word in HARMLESS_WORDS)] == []
    for secret in (token, token.split(".")[1], password.partition(":")[2], signing_key):
        assert secret not in log
    told = [json.loads(line) for line in log.splitlines()]  # each line is one JSON object
    assert all({"time", "level", "component", "process", "event"} <= set(one) for one in told)
    assert {"conductor", "http", "up", "worker"} <= {one["process"] for one in told}
    assert all(one["time"].endswith("Z") for one in told)
    started = [one for one in told if one["event"] == "appended" and one.get("session") == "person"]
    assert len(started) > 3
    assert {one["component"].partition(".")[0] for one in told} >= {"lucid", "infra", "uvicorn"}
    assert MASK not in {one["event"] for one in told}
