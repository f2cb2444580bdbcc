"""A person steps in over HTTP: ERROR and RECOVER, an end without the host, a hold, chunks made again."""

import httpx
import pytest

from tests.api.conftest import Served
from tests.api.test_a_recording import SESSIONS, until
from tests.api.test_audited_looks import entries


def running(client: httpx.Client, session: str) -> str:
    """The path of a session that runs and has some bytes."""
    client.post(SESSIONS, json={"id": session, "name": "shift"})
    client.post(f"{SESSIONS}/{session}/start")
    sent = client.post(f"/pipelines/{session}/chunks", content=b"picture")
    assert sent.status_code == 200, sent.text
    return f"{SESSIONS}/{session}"


def test_a_session_is_set_aside_and_works_again(client: httpx.Client) -> None:
    """Breaks: a platform that speaks HTTP alone cannot free a session in ERROR."""
    path = running(client, "aside")
    told = client.post(f"{path}/error", json={"reason": "bad_host"}).json()
    assert (told["status"], told["reason"], told["name"]) == ("ERROR", "bad_host", "shift")
    told = client.post(f"{path}/recover", json={"reason": "host_mended", "accept_loss": True}).json()
    assert (told["status"], told["name"]) == ("ACTIVE", "shift")
    refused = client.post(f"{path}/recover")
    assert (refused.status_code, refused.json()["code"]) == (409, "state.refused")
    client.post("/pipelines/aside/chunks", content=b" and more")
    client.post(f"{path}/stop")
    until(client, "aside", "STOPPED")
    assert client.get(f"{path}/recording").content == b"picture and more"
    actions = {one["action"] for one in entries(client, session="aside")}
    assert {"error", "recover"} <= actions


def test_a_recording_is_ended_without_its_host(client: httpx.Client) -> None:
    """Breaks: a session of a host that is gone stays open, and takes a place for ever."""
    path = running(client, "aborted")
    ended = client.post(f"{path}/abort", json={"reason": "host_gone"})
    assert ended.status_code == 200, ended.text
    shown = until(client, "aborted", "STOPPED")
    assert shown["sealed"] is True
    assert client.get(f"{path}/recording").content == b"picture"


def test_missing_chunks_are_made_again_until_the_seal(client: httpx.Client) -> None:
    """Breaks: an operator cannot drive a stage again whose chunks were lost."""
    path = running(client, "redriven")
    assert client.post(f"{path}/redrive").status_code == 200
    assert '"RunAllotted"' in client.get(f"{path}/history").text
    client.post(f"{path}/stop")
    until(client, "redriven", "STOPPED")
    refused = client.post(f"{path}/redrive")
    assert (refused.status_code, refused.json()["code"]) == (409, "replay.sealed")


def test_a_held_session_is_destroyed_by_nobody(client: httpx.Client) -> None:
    """Breaks: evidence that a court waits for is erased."""
    path = running(client, "held")
    assert client.put(f"{path}/hold", json={"reason": "case-12"}).json()["held"] is True
    assert client.put(f"{path}/hold").json()["held"] is True
    refused = client.delete(path)
    assert (refused.status_code, refused.json()["code"]) == (409, "state.refused")
    assert client.delete(f"{path}/hold", params={"reason": "case-closed"}).json()["held"] is False
    assert client.delete(path).json()["status"] == "DESTROYED"
    told = [one for one in entries(client, session="held", action="hold") if one["phase"] == "asked"]
    assert [one["reason"] for one in told] == ["case-12", "operator", "case-closed"]


@pytest.mark.parametrize(
    ("role", "method", "step", "body"),
    [
        ("NODE_OPERATOR", "PUT", "hold", {}),
        ("NODE_OPERATOR", "DELETE", "hold", None),
        ("NODE_OPERATOR", "POST", "recover", {"accept_loss": True}),
        ("AUDITOR", "POST", "recover", {}),
        ("AUDITOR", "POST", "error", {}),
        ("AUDITOR", "POST", "abort", {}),
        ("AUDITOR", "POST", "redrive", {}),
    ],
)
def test_a_role_steps_in_only_as_its_command_allows(
    served: Served, client: httpx.Client, role: str, method: str, step: str, body: dict[str, bool] | None
) -> None:
    """Breaks: a person who runs hosts gives up evidence, or lifts the hold of a court."""
    session = f"{role}-{method}-{step}-{len(body or {})}".lower()
    client.post(SESSIONS, json={"id": session})
    with served.client_with(served.token(role, "steps-in")) as person:
        answer = person.request(method, f"{SESSIONS}/{session}/{step}", json=body)
    assert (answer.status_code, answer.json()["code"]) == (403, "access.role"), answer.text
    assert client.get(f"{SESSIONS}/{session}").json()["status"] == "CREATED"
