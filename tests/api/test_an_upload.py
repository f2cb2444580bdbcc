"""A recording whose bytes come over HTTP: opened, started, sent in parts, stopped, downloaded, verified."""

import io
import time
import zipfile
from pathlib import Path
from random import Random

import httpx
import pytest

from tests.api.conftest import Served
from tests.api.test_a_recording import SESSIONS, until
from tests.support.machine.waiting import PATIENCE_S

PASSWORD = "kilimanjaro-never-seen-again"
PERSON = {
    "id": "sent",
    "name": "Payroll of Zanzibar",
    "rdp_config": {
        "host": "rdp-7",
        "username": "zanzibar-alice",
        "domain": "ZANZIBARCORP",
        "password": PASSWORD,
    },
    "metadata": {"owner": "zanzibar@example.com", "tags": ["finance", "monthly"], "project": "payroll"},
}


def test_bytes_that_were_sent_over_http_come_back_and_are_proven(
    served: Served, client: httpx.Client, tmp_path: Path
) -> None:
    """Breaks: a host that speaks HTTP only has no evidence of its sessions."""
    data = Random(7).randbytes(1_200_000)
    made = client.post(SESSIONS, json=PERSON)
    assert made.status_code == 201, made.text
    assert made.headers["location"] == f"{SESSIONS}/sent"
    shown = made.json()
    assert (shown["name"], shown["metadata"]["owner"]) == ("Payroll of Zanzibar", "zanzibar@example.com")
    assert client.post("/pipelines/sent/chunks", content=data).json()["code"] == "upload.state"
    assert client.post(f"{SESSIONS}/sent/start").json()["status"] == "ACTIVE"
    first = client.post("/pipelines/sent/chunks", content=data[:700_000])
    assert (first.status_code, first.headers["upload-offset"]) == (200, "700000"), first.text
    assert client.get("/pipelines/sent/chunks").json()["offset"] == 700_000
    again = client.post("/pipelines/sent/chunks", content=data[600_000:], headers={"Upload-Offset": "600000"})
    assert again.json()["offset"] == len(data)
    assert client.post(f"{SESSIONS}/sent/stop").json()["status"] in ("STOPPING", "STOPPED")
    shown = until(client, "sent", "STOPPED")
    assert (shown["unattested"], shown["name"], shown["metadata"]["tags"]) == (
        *(True, "Payroll of Zanzibar"),
        ["finance", "monthly"],
    )
    assert client.get(f"{SESSIONS}/sent/recording").content == data
    with zipfile.ZipFile(io.BytesIO(client.get(f"{SESSIONS}/sent/evidence").content)) as packed:
        packed.extractall(tmp_path / "copy")
    assert served.lucid("export", "--trust-file", str(tmp_path / "trust.json")).returncode == 0
    verified = served.lucid("verify", str(tmp_path / "copy"), "--trust", str(tmp_path / "trust.json"))
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_a_change_never_overwrites_one_that_the_caller_has_not_seen(
    client: httpx.Client,
) -> None:
    """Breaks: of two people who describe a session, one loses the work without a word."""
    made = client.post(SESSIONS, json={"id": "described", "name": "first", "metadata": {"project": "p"}})
    seen = made.headers["etag"]
    assert client.put(f"{SESSIONS}/described", json={"name": "x"}).status_code == 428
    changed = client.put(f"{SESSIONS}/described", json={"name": "second"}, headers={"If-Match": seen})
    assert (changed.status_code, changed.json()["name"], changed.json()["metadata"]["project"]) == (
        *(200, "second"),
        "p",
    )
    late = client.put(f"{SESSIONS}/described", json={"name": "third"}, headers={"If-Match": seen})
    assert (late.status_code, late.json()["code"]) == (412, "session.revision")
    found = client.get(f"{SESSIONS}/described")
    assert (found.json()["name"], found.headers["etag"]) == ("second", changed.headers["etag"])


def test_a_request_that_is_sent_twice_makes_one_session(client: httpx.Client) -> None:
    """Breaks: a client that lost an answer has two sessions, or an error for its repeated wish."""
    key = {"Idempotency-Key": "wish-1"}
    both = [client.post(SESSIONS, json={"id": "once", "name": "n"}, headers=key) for _ in range(2)]
    assert [answer.status_code for answer in both] == [201, 201]
    assert both[0].json()["uid"] == both[1].json()["uid"]
    other = client.post(SESSIONS, json={"id": "once", "name": "other"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency.reused")
    assert client.post(SESSIONS, json={"id": "once"}).json()["code"] == "session.exists"


def test_the_password_is_in_no_answer_and_in_no_file(served: Served, client: httpx.Client) -> None:
    """Breaks: whoever may look at a session, or holds a backup, gets into the desktop."""
    client.post(SESSIONS, json=PERSON | {"id": "secret"})
    for path in ("", "/chunks", "/pipeline", "/history", "/statistics"):
        assert PASSWORD not in client.get(f"{SESSIONS}/secret{path}").text
    assert PASSWORD not in client.get(SESSIONS).text
    for path in served.data.rglob("*"):
        if path.is_file():
            assert PASSWORD.encode() not in path.read_bytes(), path


def test_a_paused_pipeline_keeps_bytes_and_catches_up(served: Served, client: httpx.Client) -> None:
    """Breaks: maintenance of the store loses a recording, or stops it."""
    client.post(SESSIONS, json={"id": "patient"})
    client.post(f"{SESSIONS}/patient/start")
    paused = served.lucid("sessions", "pause", "patient", "--pipeline")
    assert paused.stdout == "the pipeline of patient is paused\n", paused.stderr
    assert client.post(f"{SESSIONS}/patient/pipeline/pause").json()["status"] == "PAUSED"
    assert client.post("/pipelines/patient/chunks", content=bytes(500_000)).status_code == 200
    client.post(f"{SESSIONS}/patient/stop")
    assert client.get(f"{SESSIONS}/patient/pipeline").json()["stored"] == 0
    assert client.post(f"{SESSIONS}/patient/pipeline/resume").json()["paused"] is False
    until(client, "patient", "STOPPED")
    assert client.get(f"{SESSIONS}/patient/recording").content == bytes(500_000)


@pytest.mark.parametrize("path", ["/pipelines/kept", "/recordings/kept"])
def test_cleaning_up_a_pipeline_destroys_no_evidence(client: httpx.Client, path: str) -> None:
    """Breaks: a person who ends a pipeline loses the recording."""
    if client.get(f"{SESSIONS}/kept").status_code == 404:
        client.post(SESSIONS, json={"id": "kept"})
        client.post(f"{SESSIONS}/kept/start")
        client.post("/pipelines/kept/chunks", content=b"evidence")
    client.delete(path)
    if path.startswith("/pipelines"):
        until(client, "kept", "STOPPED")
        assert client.get(f"{SESSIONS}/kept/recording").content == b"evidence"


def test_cleaning_up_a_pipeline_destroys_not_even_an_empty_session(client: httpx.Client) -> None:
    """Breaks: a session that is started in the same moment is destroyed with its first bytes."""
    client.post(SESSIONS, json={"id": "untouched"})
    answer = client.delete("/pipelines/untouched")
    assert answer.status_code == 200, answer.text
    assert client.get(f"{SESSIONS}/untouched").json()["status"] == "CREATED"
    assert client.post(f"{SESSIONS}/untouched/start").status_code == 200


def test_a_recording_is_read_while_it_grows(client: httpx.Client) -> None:
    """Breaks: who watches live sees nothing before the end, or is told a false length."""
    data = Random(9).randbytes(12_000_000)
    client.post(SESSIONS, json={"id": "growing"})
    client.post(f"{SESSIONS}/growing/start")
    client.post("/pipelines/growing/chunks", content=data)
    path, end_s = f"{SESSIONS}/growing/recording", time.monotonic() + PATIENCE_S
    while not (so_far := client.get(path).content):
        assert time.monotonic() < end_s
        time.sleep(0.1)
    assert data.startswith(so_far)
    part = client.get(path, headers={"Range": "bytes=1000-1999"})
    assert (part.status_code, part.content) == (206, data[1000:2000])
    assert part.headers["content-range"] == "bytes 1000-1999/*"
    client.post(f"{SESSIONS}/growing/stop")
    until(client, "growing", "STOPPED")
    rest = client.get(path, headers={"Range": f"bytes={len(so_far)}-"})
    assert so_far + rest.content == data
    assert rest.headers["content-range"].endswith(f"/{len(data)}")
