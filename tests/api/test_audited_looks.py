"""Looks over HTTP: recorded before a byte leaves; policy may ask for a reason and a second person."""

import socket
import time
from collections.abc import Iterator
from random import Random
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.api.conftest import Served, system
from tests.api.test_a_recording import SESSIONS, until
from tests.support.machine.waiting import PATIENCE_S


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A system whose policy asks for a reason to watch, and for a second person to export."""
    data = tmp_path_factory.mktemp("strict") / "data"
    policy = {"ACCESS_REASON_REQUIRED": "watch,export", "ACCESS_APPROVAL_REQUIRED": "export"}
    with system(data, **policy) as served, served.client() as client:
        client.post(SESSIONS, json={"id": "seen"})
        client.post(f"{SESSIONS}/seen/start")
        client.post("/pipelines/seen/chunks", content=b"picture")
        client.post(f"{SESSIONS}/seen/stop")
        until(client, "seen", "STOPPED")
        yield served


def entries(client: httpx.Client, **wanted: str) -> list[dict[str, Any]]:
    """The entries of the chain that fit, the oldest first."""
    answer = client.get("/api/v1/audit", params={"order": "asc", **wanted})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["entries"])


def test_a_download_is_in_the_chain_with_its_reason_and_its_end(strict: Served) -> None:
    """Breaks: a person watches a recording, and nobody ever learns who, when and why."""
    with strict.client() as client:
        refused = client.get(f"{SESSIONS}/seen/recording")
        assert (refused.status_code, refused.json()["code"]) == (400, "access.reason")
        for path in ("recording", "chunks/0/download"):
            sneaked = client.get(f"{SESSIONS}/seen/{path}", params=[("form", "sealed"), ("form", "plain")])
            assert (sneaked.status_code, sneaked.json()["code"]) == (400, "access.reason"), path
        sneaked = client.get(f"{SESSIONS}/seen/recording", params={"form": "sealed"})
        assert sneaked.json()["code"] == "access.reason"
        reason = {"X-Reason": "ticket 4711"}
        assert client.get(f"{SESSIONS}/seen/recording", headers=reason).content == b"picture"
        assert client.get(f"{SESSIONS}/seen/chunks/0/download", params={"form": "sealed"}).status_code == 200
        found = entries(client, session="seen", action="download")
        assert [(one["phase"], one.get("outcome", "")) for one in found][-4:] == [
            *(("asked", ""), ("outcome", "refused")),
            *(("asked", ""), ("outcome", "ok")),
        ]
        assert found[-2]["reason"] == "ticket 4711"
        assert found[-2]["address"] == "127.0.0.1"
        assert len(entries(client, session="seen", action="download_sealed")) == 2
        lines = client.get("/api/v1/audit/export").content.splitlines()
        (strict.data.parent / "audit.ndjson").write_bytes(b"\n".join(lines) + b"\n")
    verified = strict.lucid("audit", "verify", str(strict.data.parent / "audit.ndjson"))
    assert verified.returncode in (0, 9), verified.stdout + verified.stderr


def test_every_act_over_http_is_in_the_chain_with_its_address(served: Served, client: httpx.Client) -> None:
    """Breaks: a recording is begun, ended or fed over HTTP, and nobody ever learns by whom and from where."""
    client.post(SESSIONS, json={"id": "acted"})
    client.post(f"{SESSIONS}/acted/start", headers={"X-Reason": "ticket 8"})
    client.post("/pipelines/acted/chunks", content=b"one", headers={"X-Reason": "ticket 9"})
    client.post("/chunks/acted/process", content=b"two")
    client.put("/chunks/acted/999", content=b"no chunk")
    client.post(f"{SESSIONS}/acted/stop")
    small = {"resolution": "320x240", "frame_rate": 10}
    begun = client.post("/recordings/start", json={"session_id": "acted-here", "recording_config": small})
    assert begun.status_code == 201, begun.text
    assert client.post("/recordings/acted-here/stop").status_code == 200
    assert client.delete("/recordings/acted-here").status_code == 200
    assert client.post("/recordings/absent-here/stop").status_code == 404
    until(client, "acted-here", "STOPPED")
    wanted = {
        ("open", "acted"): ["", "ok"],
        ("start", "acted"): ["", "ok"],
        ("upload", "acted"): ["", "ok"] * 2,
        ("store_chunk", "acted"): ["", "refused"],
        ("record_start", "acted-here"): ["", "ok"],
        ("record_stop", "acted-here"): ["", "ok"] * 2,
        ("record_stop", "absent-here"): ["", "refused"],
    }
    for (action, session), outcomes in wanted.items():
        end_s = time.monotonic() + PATIENCE_S
        while len(found := entries(client, session=session, action=action, who="operator")) < len(outcomes):
            assert time.monotonic() < end_s, (action, found)
            time.sleep(0.05)
        assert sorted(one.get("outcome", "") for one in found) == sorted(outcomes), action
        assert {one["address"] for one in found} == {"127.0.0.1"}, action
    reasons = {one["reason"] for one in entries(client, session="acted") if one["phase"] == "asked"}
    assert {"ticket 8", "ticket 9"} <= reasons


def test_a_download_that_broke_off_has_failed_in_the_chain(served: Served, client: httpx.Client) -> None:
    """Breaks: the chain says that a person has a whole recording who took a few bytes of it."""
    client.post(SESSIONS, json={"id": "broken-off"})
    client.post(f"{SESSIONS}/broken-off/start")
    client.post("/pipelines/broken-off/chunks", content=Random(3).randbytes(24 << 20))
    client.post(f"{SESSIONS}/broken-off/stop")
    until(client, "broken-off", "STOPPED")
    place = urlsplit(served.url)
    for what in ("recording", "evidence"):
        with socket.socket() as leaving:
            leaving.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            leaving.settimeout(PATIENCE_S)
            leaving.connect((place.hostname, place.port))
            head = f"GET {SESSIONS}/broken-off/{what} HTTP/1.1\r\nHost: x\r\n"
            leaving.sendall(f"{head}Authorization: {client.headers['authorization']}\r\n\r\n".encode())
            assert b" 200 " in leaving.recv(100)
    end_s = time.monotonic() + PATIENCE_S
    found: list[dict[str, Any]] = []
    while len(found) < 2:
        assert time.monotonic() < end_s
        found = [one for one in entries(client, session="broken-off") if one["phase"] == "outcome"]
        found = [one for one in found if one["action"] in ("download", "export_evidence")]
        time.sleep(0.1)
    assert [(one["outcome"], one["code"]) for one in found] == [("failed", "transfer.cut_off")] * 2
    assert client.get(f"{SESSIONS}/broken-off/recording").status_code == 200
    while entries(client, session="broken-off", action="download")[-1]["outcome"] != "ok":
        assert time.monotonic() < end_s, "the whole one has not ended well in the chain"
        time.sleep(0.1)


def test_an_export_needs_a_second_person_who_is_not_the_first(strict: Served) -> None:
    """Breaks: one administrator alone carries evidence away."""
    first, second = (
        strict.client_with(strict.token("ADMIN", subject)) for subject in ("first-admin", "second-admin")
    )
    reason = {"X-Reason": "court order 12"}
    with first, second:
        assert first.get(f"{SESSIONS}/seen/evidence", headers=reason).status_code == 403
        asked = first.post(
            "/api/v1/access-requests",
            json={"session_id": "seen", "look": "export", "reason": "court order 12"},
        )
        assert asked.status_code == 201, asked.text
        path = f"/api/v1/access-requests/{asked.json()['id']}"
        assert first.post(f"{path}/approve").status_code in (403, 409)
        assert second.post(f"{path}/approve", json={"reason": "seen the order"}).status_code == 200
        assert first.get(f"{SESSIONS}/seen/evidence", headers=reason).status_code == 200
        assert second.get(f"{SESSIONS}/seen/evidence", headers=reason).status_code == 403
        listed = second.get("/api/v1/access-requests", params={"session_id": "seen"}).json()["requests"]
        assert [(one["requester"], one["answered_by"]) for one in listed] == [("first-admin", "second-admin")]
        taken = second.post(f"{path}/refuse")
        assert taken.status_code == 200, taken.text
        assert first.get(f"{SESSIONS}/seen/evidence", headers=reason).status_code == 403
