"""Each request over HTTP has an id: in its answer, in its problem document, in the log of all its work."""

import json
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from streams.api.problems import install
from streams.api.request_ids import RequestIds
from tests.api.conftest import Served, system
from tests.api.test_a_recording import SESSIONS

HEADER = "X-Request-Id"
GIVEN = "0190-caller.7:a"
WRONG = [
    "",
    "has blank",
    'quote"',
    "ümlaut".encode().decode("latin-1"),
    "x" * 101,
    "-begins",
    "a,b",
    "%0a",
]


def test_an_answer_names_the_id_that_its_caller_gave(client: httpx.Client) -> None:
    """Breaks: two systems have two names for one request, and their logs cannot be compared."""
    for path in ("/health", SESSIONS, f"{SESSIONS}/nobody", "/no/such/route"):
        assert client.get(path, headers={HEADER: GIVEN}).headers[HEADER] == GIVEN
    absent = client.get(f"{SESSIONS}/nobody", headers={HEADER: GIVEN})
    assert (absent.status_code, absent.json()["request_id"]) == (404, GIVEN)


def test_a_request_without_an_id_gets_one(served: Served) -> None:
    """Breaks: a person reports an error, and nobody finds its lines in the log."""
    with served.client_with("") as stranger:
        refused = [stranger.get(SESSIONS) for _ in range(2)]
    assert {one.status_code for one in refused} == {401}
    ids = [one.headers[HEADER] for one in refused]
    assert [one.json()["request_id"] for one in refused] == ids
    assert len(set(ids)) == 2
    assert all(len(one) == 32 for one in ids)


@pytest.mark.parametrize("wrong", WRONG)
def test_an_ill_formed_id_counts_as_none(client: httpx.Client, wrong: str) -> None:
    """Breaks: a hostile client writes lines of its own into the log, or makes it unreadable."""
    answer = client.get("/health", headers=[(HEADER.encode(), wrong.encode("latin-1"))])
    assert answer.status_code == 200
    assert len(answer.headers[HEADER]) == 32
    twice = client.get("/health", headers=[(HEADER, GIVEN), (HEADER, GIVEN)])
    assert len(twice.headers[HEADER]) == 32


async def test_a_bug_names_the_request_that_met_it() -> None:
    """Breaks: of all errors, the one that needs its lines in the log does not lead to them."""
    app = FastAPI()

    @app.get("/bug")
    async def bug() -> None:
        raise ZeroDivisionError

    app.add_middleware(RequestIds)
    install(app)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/bug", headers={HEADER: GIVEN})
    assert (answer.status_code, answer.json()["code"]) == (500, "api.bug")
    assert answer.headers.get_list(HEADER) == [answer.json()["request_id"]] == [GIVEN]


def test_the_log_of_a_command_names_the_request_that_sent_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Breaks: without traces, nobody finds what another process did for a request."""
    with system(tmp_path / "data") as served, served.client() as client:
        assert client.post(SESSIONS, json={"id": "named"}, headers={HEADER: GIVEN}).status_code == 201
        client.post(SESSIONS, json={"id": "unnamed"})
        held = served.lucid("sessions", "hold", "unnamed", "--reason", "case-7")
        assert held.returncode == 0, held.stderr
    told = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    appended = [one for one in told if one["event"] == "appended" and one["process"] == "conductor"]
    assert {one.get("request_id") for one in appended if one["session"] == "named"} == {GIVEN}
    (created, *later) = [one for one in appended if one["session"] == "unnamed"]
    assert len(created["request_id"]) == 32
    assert later
    assert not any("request_id" in one for one in later)
