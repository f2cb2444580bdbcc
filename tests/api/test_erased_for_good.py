"""What is left of a person after a session was destroyed: the whole data folder is searched."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import Served, system
from tests.api.test_a_recording import SESSIONS, SMALL, until
from tests.support.machine.waiting import PATIENCE_S
from tests.support.servers.secantus import secantus

PERSONAL = {
    "name": "Quarterly-Zanzibar-Review",
    "rdp_config": {
        "host": "rdp-zanzibar",
        "username": "zanzibar-ada",
        "domain": "ZANZIBARCORP",
        "password": "zanzibar-kilimanjaro",
    },
    "metadata": {
        "owner": "zanzibar-owner@example.com",
        "description": "zanzibar-description",
        "tags": ["zanzibar-tag"],
        "project": "zanzibar-project",
        "environment": "zanzibar-env",
    },
}
WORDS = (b"zanzibar", b"Zanzibar", b"ZANZIBAR")


@pytest.fixture(params=["sqlite", "mongodb"])
def folders(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[dict[str, str], list[Path]]]:
    """The environment of a system, and every folder that it writes to."""
    if request.param == "sqlite":
        yield {}, [tmp_path / "data"]
        return
    with secantus(tmp_path / "mongo") as server:
        yield {"MONGODB_URL": f"{server.url}/erased"}, [tmp_path / "data", tmp_path / "mongo"]


def found(folders: list[Path]) -> list[str]:
    """Every file that holds a personal word."""
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return [str(path) for path in files if any(word in path.read_bytes() for word in WORDS)]


def listed(served: Served) -> list[dict[str, Any]]:
    """The sessions of this owner, as the list finds them."""
    with served.client() as client:
        page = client.get(SESSIONS, params={"owner": PERSONAL["metadata"]["owner"]}).json()  # type: ignore[index]
    return list(page["sessions"])


def test_after_delete_no_personal_field_is_left_in_any_file(
    tmp_path: Path, folders: tuple[dict[str, str], list[Path]]
) -> None:
    """Breaks: a person asks to be forgotten, and the files still tell the name."""
    environment, places = folders
    with system(tmp_path / "data", **environment) as served, served.client() as client:
        made = client.post(SESSIONS, json=PERSONAL | {"id": "person"})
        assert made.status_code == 201, made.text
        client.post(f"{SESSIONS}/person/start")
        client.post("/pipelines/person/chunks", content=bytes(100_000))
        renamed = {"name": "Zanzibar-Renamed"}
        etag = client.get(f"{SESSIONS}/person").headers["etag"]
        assert client.put(f"{SESSIONS}/person", json=renamed, headers={"If-Match": etag}).status_code == 200
        by_host = PERSONAL | {"session_id": "person-2", "seconds": 1, "recording_config": SMALL}
        assert client.post("/recordings/start", json=by_host).status_code == 201
        client.post(f"{SESSIONS}/person/stop")
        until(client, "person", "STOPPED")
        until(client, "person-2", "STOPPED")
        end_s = time.monotonic() + PATIENCE_S
        while {one["name"] for one in listed(served)} != {"Zanzibar-Renamed", PERSONAL["name"]}:
            assert time.monotonic() < end_s, listed(served)
            time.sleep(0.1)
        for session in ("person", "person-2"):
            destroyed = client.delete(f"{SESSIONS}/{session}")
            assert (destroyed.status_code, destroyed.json()["status"]) == (200, "DESTROYED"), destroyed.text
        while listed(served):
            assert time.monotonic() < end_s
            time.sleep(0.1)
        shown = client.get(f"{SESSIONS}/person").json()
        assert (shown["destroyed"], shown["name"], shown["metadata"]["owner"]) == (True, "", "")
    assert found(places) == []
