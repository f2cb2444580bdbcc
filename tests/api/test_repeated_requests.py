"""A request that is repeated with its Idempotency-Key is carried out once, and answers as the first did."""

from typing import Any

import httpx
import pytest

from tests.api.conftest import Served
from tests.api.test_a_recording import SESSIONS, SMALL, until
from tests.api.test_audited_looks import entries

ACCESS = "/api/v1/access-requests"


def key(text: str) -> dict[str, str]:
    return {"Idempotency-Key": text}


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def history(client: httpx.Client, session: str) -> list[str]:
    """The types of the events of a session."""
    lines = client.get(f"{SESSIONS}/{session}/history").text.splitlines()
    return [line.split('"type":"')[1].split('"')[0] for line in lines]


def test_a_change_that_is_repeated_is_made_once(client: httpx.Client) -> None:
    """Breaks: a client whose answer was lost is told that somebody else changed the session."""
    made = client.post(SESSIONS, json={"id": "again", "name": "n", "metadata": {"owner": "zanzibar"}})
    headers = {"If-Match": made.headers["etag"], **key("change-1")}
    change = {"name": "m", "rdp_config": {"password": "kilimanjaro words"}}
    both = [client.put(f"{SESSIONS}/again", json=change, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in both] == [200, 200], both[1].text
    assert both[0].json() == both[1].json()
    assert both[0].headers["etag"] == both[1].headers["etag"] != made.headers["etag"]
    assert (both[1].json()["name"], both[1].json()["metadata"]["owner"]) == ("m", "zanzibar")
    assert history(client, "again").count("DetailsChanged") == 1
    other = client.put(f"{SESSIONS}/again", json={"name": "other"}, headers=headers)
    assert refused(other) == (409, "idempotency.reused")
    late = client.put(f"{SESSIONS}/again", json={"name": "late"}, headers={"If-Match": headers["If-Match"]})
    assert refused(late) == (412, "session.revision")


def test_a_change_says_on_which_state_it_was_decided(client: httpx.Client) -> None:
    """Breaks: a change overwrites one that its caller never saw, or a client cannot learn what is missing."""
    client.post(SESSIONS, json={"id": "matched", "name": "n"})
    path = f"{SESSIONS}/matched"
    answer = client.put(path, json={"name": "m"})
    assert refused(answer) == (428, "request.unconditional")
    assert "If-Match" in answer.json()["detail"] + answer.json()["hint"]
    assert client.get(path).json()["name"] == "n"
    any_state = client.put(path, json={"name": "m"}, headers={"If-Match": "*"})
    assert (any_state.status_code, any_state.json()["name"]) == (200, "m")
    assert refused(client.put(f"{SESSIONS}/none", json={}, headers={"If-Match": "*"})) == (
        *(404, "session.absent"),
    )


def test_the_etag_of_a_session_changes_with_its_descriptive_members_alone(client: httpx.Client) -> None:
    """Breaks: a cache shows an old name, or a poller is told that nothing happened while the state moved."""
    made = client.post(SESSIONS, json={"id": "tagged", "name": "n"})
    path = f"{SESSIONS}/tagged"
    assert made.headers["etag"].startswith('W/"')
    started = client.post(f"{path}/start")
    same = client.get(path, headers={"If-None-Match": made.headers["etag"]})
    assert (same.status_code, same.json()["status"]) == (200, started.json()["status"])
    assert same.headers["etag"] == made.headers["etag"]
    client.delete(path)
    erased = client.get(path)
    assert (erased.json()["name"], "etag" in erased.headers) == ("", False)


@pytest.mark.parametrize("step", ["start", "stop", "error", "redrive", "pipeline/pause", "hold"])
def test_a_command_that_is_repeated_adds_no_second_event(client: httpx.Client, step: str) -> None:
    """Breaks: a client that repeats its request ends, frees or holds a session a second time."""
    session = "twice-" + step.replace("/", "-")
    client.post(SESSIONS, json={"id": session})
    path = f"{SESSIONS}/{session}"
    if step != "start":
        client.post(f"{path}/start")
    method = "PUT" if step == "hold" else "POST"
    first = client.request(method, f"{path}/{step}", headers=key("step-1"))
    known = history(client, session)
    if step == "hold":
        client.delete(f"{path}/hold")
    elif step == "pipeline/pause":
        client.post(f"{path}/pipeline/resume")
    elif step == "stop":
        until(client, session, "STOPPED")
    again = client.request(method, f"{path}/{step}", headers=key("step-1"))
    assert (first.status_code, again.status_code) == (200, 200), again.text
    kinds = {"hold": "HoldChanged", "pipeline/pause": "PipelinePaused", "redrive": "RunAllotted"}
    kind = kinds.get(step, "Transitioned")
    if step in kinds:
        assert history(client, session).count(kind) == known.count(kind) + (step == "hold")
    if step == "hold":
        assert client.get(path).json()["held"] is False
    if step in ("start", "stop", "error"):
        other = client.post(f"{path}/{step}", headers=key("step-1"), json={"reason": "another"})
        assert refused(other) == (409, "idempotency.reused")


@pytest.mark.parametrize("path", [SESSIONS, "/pipelines"])
def test_a_key_makes_one_session_also_under_another_id(client: httpx.Client, path: str) -> None:
    """Breaks: a client that repeats its wish in another form has two sessions."""
    name = path.strip("/").replace("/", "-")
    both = [client.post(path, json={"name": name}, headers=key(f"{name}-1")) for _ in range(2)]
    assert [answer.status_code for answer in both] == [201, 201]
    assert both[0].json() == both[1].json()
    for other in ({"name": name, "id": f"{name}-other"}, {"name": "other"}):
        assert refused(client.post(path, json=other, headers=key(f"{name}-1"))) == (409, "idempotency.reused")
    assert client.get(f"{SESSIONS}/{name}-other").status_code == 404
    again = client.post(path, content=f'{{ "name" : "{name}" }}', headers={**key(f"{name}-1"), **JSON})
    assert again.status_code == 201, again.text


JSON = {"Content-Type": "application/json"}


def test_a_recording_that_is_asked_for_twice_is_begun_once(client: httpx.Client) -> None:
    """Breaks: a console that repeats its click records the same desktop twice, or is told it failed."""
    asked: dict[str, Any] = {"recording_config": SMALL, "seconds": 60}
    both = [client.post("/recordings/start", json=asked, headers=key("click-1")) for _ in range(2)]
    assert [answer.status_code for answer in both] == [201, 201], both[1].text
    session = both[0].json()["session_id"]
    assert (both[1].json()["session_id"], both[1].headers["location"]) == (session, f"/recordings/{session}")
    other = client.post("/recordings/start", json={**asked, "session_id": "click-2"}, headers=key("click-1"))
    assert refused(other) == (409, "idempotency.reused")
    assert client.get(f"{SESSIONS}/click-2").status_code == 404
    without = client.post("/recordings/start", json={**asked, "session_id": session})
    assert refused(without) == (409, "recording.exists")
    client.post(f"/recordings/{session}/stop")
    until(client, session, "STOPPED")
    again = client.post("/recordings/start", json=asked, headers=key("click-1"))
    assert (again.status_code, again.json()["session_id"]) == (201, session)


def test_a_wish_to_watch_that_is_repeated_is_one_request(served: Served, client: httpx.Client) -> None:
    """Breaks: a person whose answer was lost is told to wait, and never learns its id."""
    client.post(SESSIONS, json={"id": "wished"})
    asked = {"session_id": "wished", "look": "watch", "reason": "ticket 1"}
    both = [client.post(ACCESS, json=asked, headers=key("wish-1")) for _ in range(2)]
    assert [answer.status_code for answer in both] == [201, 201], both[1].text
    assert both[0].json() == both[1].json()
    assert refused(client.post(ACCESS, json=asked)) == (409, "access.waiting")
    for other in ({**asked, "reason": "ticket 2"}, {**asked, "look": "export"}):
        assert refused(client.post(ACCESS, json=other, headers=key("wish-1"))) == (409, "idempotency.reused")
    path = f"{ACCESS}/{both[0].json()['id']}/approve"
    with served.client_with(served.token("ADMIN", "second-of-wish")) as second:
        granted = [second.post(path, headers=key("grant-1")) for _ in range(2)]
        assert [answer.json()["stage"] for answer in granted] == ["GRANTED", "GRANTED"]
    listed = entries(client, session="wished", action="access_request")
    assert len([one for one in listed if one["phase"] == "asked"]) >= 2


def test_a_key_of_one_person_is_not_the_key_of_another(served: Served) -> None:
    """Breaks: a person learns of another's sessions by guessing keys, or is refused because of them."""
    for subject in ("key-one", "key-two"):
        with served.client_with(served.token("ADMIN", subject)) as person:
            answer = person.post(SESSIONS, json={"name": subject}, headers=key("shared"))
            assert (answer.status_code, answer.json()["name"]) == (201, subject)


def test_a_refused_form_leaves_its_key_free(client: httpx.Client) -> None:
    """Breaks: a client that mends a misspelt member needs a new key for the same wish."""
    assert client.post(SESSIONS, json={"nmae": "x"}, headers=key("mended")).status_code == 422
    assert client.post(SESSIONS, json={"name": "x"}, headers=key("mended")).status_code == 201
