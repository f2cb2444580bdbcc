"""Every route of the application asks for a token and for the permission of its row."""

import re
from collections.abc import Iterable, Iterator

import httpx
import pytest
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from handlers.access.permissions import Reach, reach
from handlers.access.routes import OPEN, ROUTES
from schemas.access import GIVEN_ROLES, Caller, Role
from streams.api.app import routed
from tests.api.conftest import Served

SESSIONS = "/api/v1/sessions"
VALUES = {"session_id": "nobody-01", "chunk_id": "0", "index": "0", "host": "nobody"}
MALFORMED = {"content": b"{", "headers": {"Content-Type": "application/json"}}


def served_routes() -> set[str]:
    """Every method and path that the application serves, as `GET /health`."""
    app = routed("0")
    found = {f"{method} {route.path_format}" for route in flat(app.routes) for method in route.methods}
    documented = app.openapi()["paths"].items()
    assert {f"{method.upper()} {path}" for path, methods in documented for method in methods} <= found
    return found


def flat(routes: Iterable[BaseRoute]) -> Iterator[APIRoute]:
    """The routes of all routers. Anything else that is served would be a hole."""
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        else:
            yield from flat(route.original_router.routes)  # type: ignore[attr-defined]


def asked(route: str) -> tuple[str, str]:
    """The method and a path of a route."""
    method, path = route.split(" ")
    return method, re.sub(r"{(\w+)(:\w+)?}", lambda found: VALUES.get(found[1], "x"), path)


GUARDED = sorted(route for route in served_routes() if route.split(" ")[1] not in OPEN)


def test_every_route_has_a_row_and_every_row_a_route() -> None:
    """Breaks: a new route is open to everybody, or to nobody."""
    assert set(GUARDED) == set(ROUTES)


@pytest.fixture(scope="module")
def tokens(served: Served) -> dict[str, str]:
    """A token of each role, and one without any."""
    return {role: served.token(role, f"walks-{role.lower()}") for role in GIVEN_ROLES}


@pytest.fixture
def stranger(served: Served) -> Iterator[httpx.Client]:
    with served.client_with("") as client:
        yield client


def test_without_a_token_nothing_is_answered_but_health(stranger: httpx.Client) -> None:
    """Breaks: everybody who reaches the port reads and destroys recordings."""
    for route in GUARDED:
        method, path = asked(route)
        for more in ({}, MALFORMED, {"headers": {"Authorization": "Basic YTpi"}}):
            answer = stranger.request(method, path, **more)
            assert answer.status_code == 401, route
            assert answer.headers["www-authenticate"].startswith("Bearer"), route
            if method != "HEAD":
                assert answer.json()["code"] in ("access.missing", "access.token"), route
    for path in ("/nowhere", "/docs", "/openapi.json", f"{SESSIONS}/", "/health/", "//health", "/HEALTH"):
        assert stranger.get(path).status_code in (401, 404), path
        assert "session" not in stranger.get(path).text.lower() or stranger.get(path).status_code == 401
    for path in OPEN & {asked(route)[1] for route in served_routes()}:
        assert stranger.get(path).status_code == 200, path


@pytest.mark.parametrize("token", ["e30.e30.", "x", "Bearer", "a.b.c" * 2000, "ä"])
def test_a_token_that_does_not_count_is_refused(served: Served, token: str) -> None:
    """Breaks: a made-up token opens the API, or ends it."""
    with httpx.Client(base_url=served.url) as client:
        header = [(b"Authorization", b"Bearer " + token.encode())]
        answer = client.get(SESSIONS, headers=header)
    assert (answer.status_code, answer.json()["code"]) == (401, "access.token")
    assert token not in answer.text or len(token) < 7


def test_a_role_reaches_the_routes_of_its_permissions_and_no_others(
    served: Served, tokens: dict[str, str]
) -> None:
    """Breaks: the table says one thing and a route does another."""
    for role, token in tokens.items():
        with served.client_with(token) as client:
            for route in GUARDED:
                method, path = asked(route)
                may = reach(Caller("x", frozenset({Role(role)})), ROUTES[route]) is not Reach.NONE
                if may and route in ("POST /pipelines", "POST /recordings/start"):
                    continue  # without a body it begins one
                with client.stream(method, path) as answer:
                    assert (answer.status_code not in (401, 403)) is may, (role, route, answer.status_code)
                    assert answer.status_code < 500, (role, route)


def test_a_session_of_another_person_looks_like_none(served: Served, tokens: dict[str, str]) -> None:
    """Breaks: a person watches the recordings of others, or learns that there are any."""
    with served.client_with(served.token("USER", "walks-owner")) as owner:
        made = owner.post(SESSIONS, json={"id": "walked-01", "name": "mine"})
        assert made.status_code == 201, made.text
        assert owner.get(f"{SESSIONS}/walked-01").json()["name"] == "mine"
        assert [one["id"] for one in owner.get(SESSIONS).json()["sessions"]] == ["walked-01"]
    with served.client_with(tokens["USER"]) as other:
        assert other.get(SESSIONS).json()["sessions"] == []
        for route in GUARDED:
            method, path = asked(route)
            if "nobody-01" not in path or ROUTES[route] not in OWN:
                continue
            told = [
                other.request(method, path.replace("nobody-01", name), headers={"X-Request-Id": "walk"})
                for name in ("walked-01", "never-01")
            ]
            texts = {answer.text.replace("walked-01", "NAME").replace("never-01", "NAME") for answer in told}
            assert ({answer.status_code for answer in told}, len(texts)) == ({404}, 1), route


OWN = {one for one in ROUTES.values() if reach(Caller("x", frozenset({Role.USER})), one) is Reach.OWN}


def test_only_an_administrator_destroys_a_session_with_a_recording(served: Served) -> None:
    """Breaks: the owner of a recording destroys the evidence."""
    with served.client_with(served.token("USER", "walks-eraser")) as owner:
        assert owner.post(SESSIONS, json={"id": "walked-02"}).status_code == 201
        assert owner.post(f"{SESSIONS}/walked-02/start").json()["status"] == "ACTIVE"
        assert owner.post("/pipelines/walked-02/chunks", content=b"x" * 1000).status_code == 200
        refused = owner.delete(f"{SESSIONS}/walked-02")
        assert (refused.status_code, refused.json()["code"]) == (403, "access.recorded")
        assert owner.post(SESSIONS, json={"id": "walked-03"}).status_code == 201
        assert owner.delete(f"{SESSIONS}/walked-03").json()["status"] == "DESTROYED"
    with served.client() as operator:
        assert operator.delete(f"{SESSIONS}/walked-02").json()["status"] == "DESTROYED"


def test_no_page_of_another_origin_calls_the_api(stranger: httpx.Client, client: httpx.Client) -> None:
    """Breaks: a page on the internet reads recordings through the browser of an operator."""
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"}
    for answer in (stranger.options(SESSIONS, headers=headers), client.get(SESSIONS, headers=headers)):
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
