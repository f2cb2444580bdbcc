"""Recordings and access requests come in pages that nothing moves."""

from typing import Any

import httpx

from tests.api.conftest import Served
from tests.api.test_a_recording import SESSIONS, recorded

ACCESS = "/api/v1/access-requests"


def pages(client: httpx.Client, path: str, of: str, **wanted: Any) -> list[list[dict[str, Any]]]:
    """Every page of a list, to its end."""
    found, after = [], 0
    while True:
        answer = client.get(path, params={**wanted, "after": after})
        assert answer.status_code == 200, answer.text
        found.append(list(answer.json()[of]))
        after = answer.json()["next"]
        if after is None:
            return found


def test_recordings_come_in_pages(client: httpx.Client) -> None:
    """Breaks: a console of a busy host loads all its recordings at once, or misses some."""
    names = [f"paged-{number}" for number in range(3)]
    for name in names[:2]:
        recorded(client, name, 1)
    known = [one["session_id"] for page in pages(client, "/recordings", "recordings") for one in page]
    first = client.get("/recordings", params={"limit": len(known) - 1}).json()
    recorded(client, names[2], 1)
    rest = pages(client, "/recordings", "recordings", limit=1)
    assert [len(page) for page in rest] == [1] * (len(known) + 1)
    assert [page[0]["session_id"] for page in rest] == [*known, names[2]]
    answer = client.get("/recordings", params={"after": first["next"]}).json()
    assert [one["session_id"] for one in answer["recordings"]] == names[1:]
    assert answer["next"] is None
    for limit in (0, 501):
        assert client.get("/recordings", params={"limit": limit}).status_code == 422


def test_requests_for_a_second_person_come_in_pages(served: Served, client: httpx.Client) -> None:
    """Breaks: a person who approves reads thousands of requests at once, or never sees the newest."""
    client.post(SESSIONS, json={"id": "paged-looks"})
    wanted = []
    for number in range(5):
        with served.client_with(served.token("ADMIN", f"pages-{number}")) as person:
            asked = {"session_id": "paged-looks", "reason": "ticket"}
            wanted.append(person.post(ACCESS, json=asked).json()["id"])
    for limit, sizes in ((2, [2, 2, 1]), (5, [5]), (200, [5])):
        found = pages(client, ACCESS, "requests", session_id="paged-looks", limit=limit)
        assert [len(page) for page in found] == sizes
        assert [one["id"] for page in found for one in page] == wanted
    assert client.get(ACCESS, params={"limit": 201}).status_code == 422
