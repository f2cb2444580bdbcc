"""A recording of the recorder's own host, by HTTP alone: started, followed, stopped, downloaded, verified."""

import io
import json
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.capture.ffmpeg import decode
from tests.api.conftest import Served
from tests.support.machine.waiting import PATIENCE_S

SESSIONS = "/api/v1/sessions"
JSON = {"Content-Type": "application/json"}
SMALL = {"resolution": "320x240", "frame_rate": 10}


def until(client: httpx.Client, session: str, *states: str) -> dict[str, Any]:
    """The session once it is in one of these states."""
    end_s = time.monotonic() + PATIENCE_S
    while (shown := client.get(f"{SESSIONS}/{session}").json())["status"] not in states:
        assert time.monotonic() < end_s, shown
        time.sleep(0.1)
    return dict(shown)


def recorded(client: httpx.Client, session: str, seconds: float = 2) -> dict[str, Any]:
    """A sealed recording of so many seconds."""
    asked = {"session_id": session, "recording_config": SMALL, "seconds": seconds}
    answer = client.post("/recordings/start", json=asked)
    assert answer.status_code == 201, answer.text
    return until(client, session, "STOPPED")


def test_a_recording_by_http_is_downloaded_whole_in_parts_and_verified(
    served: Served, client: httpx.Client, tmp_path: Path
) -> None:
    """Breaks: a platform that speaks HTTP alone gets no recording, or one that it cannot prove."""
    shown = recorded(client, "by-http")
    assert (shown["sealed"], shown["unattested"], shown["statistics"]["gaps"]) == (True, False, 0)
    page = client.get(f"{SESSIONS}/by-http/chunks").json()
    chunks = page["chunks"]
    assert [chunk["sequence"] for chunk in chunks] == list(range(len(chunks)))
    whole = client.get(f"{SESSIONS}/by-http/recording").content
    assert len(whole) == sum(chunk["bytes"] for chunk in chunks) == shown["statistics"]["bytes"] > 1000
    one_by_one = [client.get(f"{SESSIONS}/by-http/chunks/{chunk['id']}/download") for chunk in chunks]
    assert b"".join(answer.content for answer in one_by_one) == whole
    middle = client.get(f"{SESSIONS}/by-http/recording", headers={"Range": "bytes=100-299"})
    assert (middle.status_code, middle.content) == (206, whole[100:300])
    assert middle.headers["content-range"] == f"bytes 100-299/{len(whole)}"
    tail = client.get(f"{SESSIONS}/by-http/recording", headers={"Range": "bytes=-50"})
    assert tail.content == whole[-50:]
    outside = client.get(f"{SESSIONS}/by-http/recording", headers={"Range": f"bytes={len(whole)}-"})
    assert (outside.status_code, outside.json()["code"]) == (416, "request.range")
    sealed = client.get(f"{SESSIONS}/by-http/chunks/0/download", params={"form": "sealed"})
    assert sealed.headers["etag"].strip('"') == chunks[0]["hash"]
    with zipfile.ZipFile(io.BytesIO(client.get(f"{SESSIONS}/by-http/evidence").content)) as packed:
        packed.extractall(tmp_path / "copy")
    assert served.lucid("export", "--trust-file", str(tmp_path / "trust.json")).returncode == 0
    verified = served.lucid("verify", str(tmp_path / "copy"), "--trust", str(tmp_path / "trust.json"))
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_the_live_state_of_a_session_is_told_to_its_end_and_taken_up_again(client: httpx.Client) -> None:
    """Breaks: a console shows an old state, or misses a step after its connection broke."""
    recorded(client, "followed", 1)
    told = events(client, "followed")
    states = [event["state"] for _, event in told if event["event"] == "Transitioned"]
    assert states[-1] == "STOPPED"
    assert next(event["event"] for _, event in told if "at" in event) == "Created"
    assert {"recorded", "stored"} <= {event.get("step") for _, event in told}
    some_id = told[3][0]
    again = events(client, "followed", some_id)
    assert 0 < len(again) < len(told)


def events(client: httpx.Client, session: str, last_id: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Every event of the stream with its id, until the stream ends."""
    found, event_id = [], ""
    headers = {"Last-Event-ID": last_id} if last_id else {}
    with client.stream("GET", f"{SESSIONS}/{session}/events", headers=headers) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            if line.startswith("id: "):
                event_id = line[4:]
            elif line.startswith("data: "):
                found.append((event_id, json.loads(line[6:])))
    return found


def test_a_recording_of_this_host_carries_what_every_session_carries(
    client: httpx.Client, tmp_path: Path
) -> None:
    """Breaks: a recorder is asked for a small picture, a codec and a title, and takes none of them."""
    asked = {
        "session_id": "told-of",
        "name": "Zanzibar shift",
        "rdp_config": {"host": "rdp-7", "password": "kilimanjaro-7"},
        "recording_config": {"resolution": "640x360", "frame_rate": 5, "quality": "low", "cursor": False},
        "storage_config": {
            "retention_days": 2,
            "max_size_gb": 2,
            "encryption": "aes-256-gcm",
            "compression": "lz4",
        },
        "metadata": {"tags": ["ward-7"], "owner": "zanzibar-ann"},
        "seconds": 2,
    }
    begun = client.post("/recordings/start", json=asked)
    assert (begun.status_code, begun.json()["resolution"]) == (201, "640x360"), begun.text
    shown = until(client, "told-of", "STOPPED")
    assert (shown["name"], shown["metadata"]["tags"], shown["metadata"]["owner"]) == (
        *("Zanzibar shift", ["ward-7"]),
        "zanzibar-ann",
    )
    assert shown["rdp_config"]["host"] == "rdp-7"
    assert "kilimanjaro-7" not in json.dumps(shown)
    assert shown["storage_config"] == {
        "retention_days": 2,
        "max_size_gb": 2,
        "encryption": "aes-256-gcm",
        "compression": "lz4",
        "backup": False,
        "archive": False,
    }
    file = tmp_path / "described.mp4"
    file.write_bytes(client.get(f"{SESSIONS}/told-of/recording").content)
    media = decode(file)
    assert (media.codec, media.width, media.height) == ("h264", 640, 360)
    assert media.frames / media.seconds == pytest.approx(5, rel=0.05)
    destroyed = client.delete(f"{SESSIONS}/told-of")
    assert (destroyed.status_code, destroyed.json()["code"]) == (409, "retention.early")


def test_a_recording_refuses_what_nothing_obeys(client: httpx.Client) -> None:
    """Breaks: somebody believes that sound is recorded, or that a copy is kept elsewhere."""
    for member in (
        {"recording_config": {"audio": True}},
        {"storage_config": {"backup": True}},
        {"storage_config": {"archive": True}},
    ):
        answer = client.post("/recordings/start", json=member)
        assert (answer.status_code, answer.json()["code"]) == (400, "session.unsupported"), answer.text


def test_every_error_is_a_problem_document(client: httpx.Client) -> None:
    """Breaks: a program cannot tell a missing session from a bug."""
    cases = {
        ("GET", f"{SESSIONS}/none"): (404, "session.absent"),
        ("GET", f"{SESSIONS}/none/chunks"): (404, "session.absent"),
        ("GET", "/recordings/none"): (404, "recording.absent"),
        ("GET", "/nowhere"): (404, "http.404"),
        ("PATCH", SESSIONS): (405, "http.405"),
        ("GET", f"{SESSIONS}?limit=0"): (422, "request.invalid"),
        ("GET", f"{SESSIONS}/a%20b"): (422, "request.invalid"),
    }
    for (method, path), expected in cases.items():
        answer = client.request(method, path)
        assert answer.headers["content-type"] == "application/problem+json", path
        assert (answer.status_code, answer.json()["code"]) == expected, path
        assert answer.json()["status"] == answer.status_code
    assert "/openapi.json" in client.get("/").json()["hint"], "the first thing that anyone opens"
    large = b"{" + b" " * (2 << 20)

    def undeclared() -> Iterator[bytes]:
        yield from (large[at : at + 65536] for at in range(0, len(large), 65536))

    for method, path in (("POST", SESSIONS), ("PUT", f"{SESSIONS}/none")):
        for content in (large, undeclared()):
            answer = client.request(method, path, content=content, headers=JSON)
            assert (answer.status_code, answer.json()["code"]) == (413, "request.size"), path


def test_health_needs_nothing(served: Served) -> None:
    """Breaks: a load balancer cannot ask."""
    assert httpx.get(f"{served.url}{SESSIONS}/health").json()["status"] == "ok"
    assert "# TYPE" in httpx.get(f"{served.url}{SESSIONS}/metrics").text
    needs = {"nats", "commands", "views", "data", "chunks", "keys", "workers", "stages"}
    for path in ("/health", "/ready"):
        found = httpx.get(served.url + path).json()
        assert (found["status"], set(found["dependencies"])) == ("ok", needs), path
        assert all(one["state"] == "ok" for one in found["dependencies"].values())


def test_the_settings_of_a_service_tell_no_secret(served: Served, client: httpx.Client) -> None:
    """Breaks: whoever may look at settings gets the password of the NATS server."""
    found = {one["name"]: one for one in client.get("/config").json()["settings"]}
    assert found["CHUNK_SIZE_MB"]["value"] == "10"
    run = json.loads((served.data / "run.json").read_text())
    password = run["nats_url"].split("@")[0].split(":")[-1]
    assert len(password) > 8
    assert password not in client.get("/config").text


def test_a_service_counts_its_sessions_and_bytes(client: httpx.Client) -> None:
    """Breaks: a person on call cannot tell how much a host records, or how well it compresses."""
    recorded(client, "counted", 1)
    status = client.get("/status").json()
    assert status["sessions"]["STOPPED"] >= 1
    found = client.get("/compression/stats").json()
    assert found["sessions"] >= 1
    assert found["bytes"] >= found["chunks"] > 0
    sums = client.get(f"{SESSIONS}/statistics", params={"text": "counted"}).json()
    assert (sums["sessions"], sums["states"]["STOPPED"]["sessions"]) == (1, 1)
    page = client.get(SESSIONS, params={"text": "counted", "sort": "size", "order": "asc"}).json()
    assert [one["id"] for one in page["sessions"]] == ["counted"]


def test_an_open_path_is_open_for_reading_alone(served: Served) -> None:
    """Breaks: a stranger without a token reaches the route of a session that is named like an open path."""
    for path in ("/health", "/metrics"):
        for method in ("PUT", "DELETE", "POST"):
            answer = httpx.request(method, f"{served.url}{SESSIONS}{path}", content=b"{}")
            assert answer.status_code in (401, 405), (method, path, answer.text)
