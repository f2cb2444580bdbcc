"""`where` over HTTP and on the command line: one answer, for a caller that may see the session."""

import json
import time
from random import Random
from typing import Any

import httpx

from tests.api.conftest import Served
from tests.api.test_a_recording import SESSIONS, until
from tests.support.machine.waiting import PATIENCE_S


def looked(client: httpx.Client, **asked: Any) -> dict[str, Any]:
    answer = client.get(f"{SESSIONS}/placed/where", params=asked)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_where_tells_stored_chunks_and_what_waits_over_http_and_to_people(
    served: Served, client: httpx.Client
) -> None:
    """Breaks: `where is my recording?` has one answer on the command line and another over HTTP."""
    client.post(SESSIONS, json={"id": "placed"})
    client.post(f"{SESSIONS}/placed/start")
    assert client.post("/pipelines/placed/chunks", content=Random(3).randbytes(13 << 20)).status_code == 200
    end_s = time.monotonic() + PATIENCE_S
    while (found := looked(client))["stages"] != {"stored": 1}:
        assert time.monotonic() < end_s, found
        time.sleep(0.05)
    (chunk,) = found["chunks"]
    assert (chunk["index"], chunk["stage"], chunk["error"], found["next"]) == (0, "stored", None, None)
    assert found["waiting_fragments"] > 0
    assert found["sequences"]["chunks"] > 0
    assert looked(client, unstored=True)["chunks"] == []
    told = served.lucid("sessions", "where", "placed").stdout
    assert told.startswith("placed | ACTIVE | 1 chunk, 1 stored\n"), told
    assert f"{found['waiting_fragments']} fragments waiting, in no chunk yet" in told
    whole = json.loads(served.lucid("sessions", "where", "placed", "--json").stdout)
    assert [(one["index"], one["stage"]) for one in whole["chunks"]] == [(0, "stored")]
    screen = served.lucid("watch", "--no-follow").stdout
    assert "placed" in screen, screen
    looks = json.loads(served.lucid("watch", "--no-follow", "--json").stdout)
    (row,) = [one for one in looks["sessions"] if one["session"] == "placed"]
    assert (row["stored"], row["recorded"], row["waiting"]) == (1, 1, found["waiting_fragments"])
    assert served.lucid("scrub").stdout == "the scrub is off; SCRUB_MB_PER_S turns it on\n"
    assert served.lucid("scrub", "placed").returncode == 5
    client.post(f"{SESSIONS}/placed/stop")
    until(client, "placed", "STOPPED")
    sealed = looked(client)
    count = len(client.get(f"{SESSIONS}/placed/chunks").json()["chunks"])
    assert (sealed["sealed"], sealed["stages"], sealed["pending"]) == (True, {"stored": count}, 0)
    assert "chunk " not in served.lucid("sessions", "where", "placed").stdout.split("\n", 1)[1]


def test_where_of_a_session_that_the_caller_may_not_see_tells_nothing(
    served: Served, client: httpx.Client
) -> None:
    """Breaks: a user learns of the sessions of other people."""
    client.post(SESSIONS, json={"id": "not-yours"})
    with served.client_with(served.token("USER", "somebody-else")) as other:
        assert other.get(f"{SESSIONS}/not-yours/where").json()["code"] == "session.absent"
    assert client.get(f"{SESSIONS}/absent-01/where").status_code == 404
    assert client.get(f"{SESSIONS}/not-yours/where", params={"limit": 0}).status_code == 422
