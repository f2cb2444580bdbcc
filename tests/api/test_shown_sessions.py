"""A session is told alike by every route that shows it: created, commanded, read, listed."""

from typing import Any

import httpx

from tests.api.test_a_recording import SESSIONS, until

ONLY_READ = ("fragments", "errors", "gaps")
"""Numbers that only GET tells."""
ASKED = {
    "name": "Zanzibar shift",
    "rdp_config": {"host": "rdp-9", "port": 3390, "username": "zanzibar-bob"},
    "recording_config": {"frame_rate": 5, "resolution": "640x480", "quality": "low", "cursor": False},
    "storage_config": {"retention_days": 3, "max_size_gb": 2, "encryption": "aes-256-gcm"},
    "metadata": {"owner": "zanzibar@example.com", "tags": ["night"], "priority": "high"},
}


def listed(client: httpx.Client, session: str) -> dict[str, Any]:
    """The list's item of a session, once the list knows every event."""
    page = client.get(SESSIONS, params={"text": session}).json()
    while page["behind"]:
        page = client.get(SESSIONS, params={"text": session}).json()
    (item,) = page["sessions"]
    return dict(item)


def read(client: httpx.Client, session: str) -> dict[str, Any]:
    """What GET tells of a session, but for the numbers that it alone tells."""
    told: dict[str, Any] = client.get(f"{SESSIONS}/{session}").json()
    assert None not in [told["statistics"][name] for name in ONLY_READ]
    told["statistics"] |= dict.fromkeys(ONLY_READ)
    return told


def test_every_command_answers_the_session_that_a_read_tells(client: httpx.Client) -> None:
    """Breaks: a console that shows the answer of its click blanks the name and the owner."""
    made = client.post(SESSIONS, json=ASKED | {"id": "told"})
    assert (made.status_code, made.json()) == (201, read(client, "told"))
    path = f"{SESSIONS}/told"
    for step in ("start", "pause", "resume", "stop"):
        body = client.post(f"{path}/{step}").json()
        members = {name: body[name] for name in ("name", "rdp_config", "metadata", "revision")}
        assert members == {name: read(client, "told")[name] for name in members}, step
        assert (body["name"], body["metadata"]["owner"]) == ("Zanzibar shift", "zanzibar@example.com"), step


def test_an_item_of_a_list_is_the_session_that_a_read_tells(client: httpx.Client) -> None:
    """Breaks: a list shows the settings of no session as those of each."""
    client.post(SESSIONS, json=ASKED | {"id": "itemised"})
    client.post(f"{SESSIONS}/itemised/start")
    client.post(f"{SESSIONS}/itemised/pipeline/pause")
    item, told = listed(client, "itemised"), read(client, "itemised")
    assert item.pop("statistics").keys() == told.pop("statistics").keys()
    assert item == told
    config = item["recording_config"]
    assert (config["frame_rate"], config["resolution"], config["quality"]) == (5, "640x480", "low")
    assert (item["storage_config"]["retention_days"], item["pipeline_paused"]) == (3, True)
    assert "STOP" in item["allowed"]
    assert (item["ended_at"], item["retained_until"]) == (None, None), "its period begins with the seal"
    client.post(f"{SESSIONS}/itemised/pipeline/resume")
    client.post("/pipelines/itemised/chunks", content=bytes(400_000))
    client.post(f"{SESSIONS}/itemised/stop")
    until(client, "itemised", "STOPPED")
    item, told = listed(client, "itemised"), read(client, "itemised")
    assert item["statistics"]["bytes"] >= told["statistics"]["bytes"] == 400_000
    item["statistics"]["bytes"] = told["statistics"]["bytes"]
    assert item == told
    assert told["started_at"] < told["ended_at"] < told["retained_until"]
    assert told["statistics"]["duration_s"] > 0
    chunks = client.get(f"{SESSIONS}/itemised/chunks").json()["chunks"]
    assert told["statistics"]["chunks"] == told["statistics"]["chunks_stored"] == len(chunks) > 0


def test_a_change_keeps_members_that_it_does_not_name(client: httpx.Client) -> None:
    """Breaks: who adds a tag to a session erases its owner, or who changes a port its user."""
    made = client.post(SESSIONS, json=ASKED | {"id": "changed"})
    change = {"metadata": {"tags": ["day"]}, "rdp_config": {"port": 3391}}
    answer = client.put(f"{SESSIONS}/changed", json=change, headers={"If-Match": made.headers["etag"]})
    wanted = made.json()
    wanted["metadata"]["tags"], wanted["rdp_config"]["port"] = ["day"], 3391
    assert (answer.json()["metadata"], answer.json()["rdp_config"]) == (
        wanted["metadata"],
        wanted["rdp_config"],
    )
    assert answer.json() == read(client, "changed")
