"""Answers have the headers that the OpenAPI document names; the document names every header and condition."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi.dependencies.models import Dependant

from schemas.api.problem import MEDIA_TYPE
from streams.api.app import routed
from streams.api.commands import commands_of
from tests.api.conftest import Served
from tests.api.test_a_recording import SESSIONS, until
from tests.api.test_every_route_is_guarded import flat

DOCUMENT = routed("0").openapi()
BYTES = ("application/octet-stream", "application/zip")
TOLD = frozenset(
    (
        *("accept-ranges", "cache-control", "content-disposition", "content-range", "etag", "location"),
        *("retry-after", "upload-offset", "www-authenticate", "x-request-id"),
    )
)
"""Headers of ours."""
RANGED = frozenset(("If-Match", "If-None-Match", "If-Range", "Range"))
SESSION = "as-described"


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every method and path, with its description."""
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def headers_of(operation: dict[str, Any], status: int) -> dict[str, bool]:
    """The headers that an answer may have, each with whether it must."""
    responses = operation["responses"]
    response = responses.get(str(status), responses.get(f"{status // 100}XX", {}))
    return {name.lower(): one["required"] for name, one in response.get("headers", {}).items()}


def taken(operation: dict[str, Any]) -> set[str]:
    """The headers of requests that an operation obeys."""
    return {one["name"] for one in operation.get("parameters", ()) if one["in"] == "header"}


def test_bytes_have_ranges_conditions_and_a_head() -> None:
    """Breaks: a client cannot tell which downloads go on after they broke off."""
    ranged = set()
    for method, path, operation in operations():
        responses = operation["responses"]
        has_range = "206" in responses
        assert has_range == ("416" in responses) == (taken(operation) >= RANGED), (method, path)
        if has_range:
            ranged.add(path)
            assert {"accept-ranges", "content-range", "etag"} <= set(headers_of(operation, 206)), path
            assert headers_of(operation, 416)["content-range"], path
        if method == "get" and set(responses["200"].get("content", ())) & {*BYTES}:
            head = DOCUMENT["paths"][path]["head"]
            assert "content" not in head["responses"]["200"], path
            wanted = set(headers_of(operation, 200)) - {"content-length"}
            assert set(headers_of(head, 200)) - {"content-length"} == wanted, path
            assert not taken(head) & {"Range", "If-Range"}, path
    assert len(ranged) == 5


def test_every_error_is_a_problem_document_with_its_headers() -> None:
    """Breaks: a generated client reads an error as something else, or never waits before it asks again."""
    for method, path, operation in operations():
        for status, response in operation["responses"].items():
            if status[0] in "45" and (path, status) != ("/ready", "503"):
                assert list(response["content"]) == [MEDIA_TYPE], (method, path, status)
        assert headers_of(operation, 429)["retry-after"], path
        if "security" in operation:
            assert headers_of(operation, 401)["www-authenticate"], path
            assert headers_of(operation, 503)["retry-after"], path
        if "201" in operation["responses"] and path != "/api/v1/access-requests":
            assert headers_of(operation, 201)["location"], path


def test_a_key_of_a_repetition_is_documented_where_it_is_read() -> None:
    """Breaks: a client sends an Idempotency-Key, and its request is carried out twice all the same."""
    keyed = 0
    for route in flat(routed("0").routes):
        for method in route.methods:
            operation = DOCUMENT["paths"].get(route.path_format, {}).get(method.lower())
            if operation is None:
                continue
            documented = any(name.lower() == "idempotency-key" for name in taken(operation))
            assert documented == sends(route.dependant), (method, route.path)
            assert method not in ("GET", "HEAD") or not documented, route.path
            keyed += documented
    assert keyed > 10


def sends(dependant: Dependant) -> bool:
    """Whether a route sends commands."""
    return dependant.call is commands_of or any(map(sends, dependant.dependencies))


@pytest.fixture(scope="module")
def sealed(served: Served) -> Iterator[httpx.Client]:
    with served.client() as client:
        client.post(SESSIONS, json={"id": SESSION})
        client.post(f"{SESSIONS}/{SESSION}/start")
        assert client.post(f"/pipelines/{SESSION}/chunks", content=b"picture" * 100).status_code == 200
        client.post(f"{SESSIONS}/{SESSION}/stop")
        until(client, SESSION, "STOPPED")
        yield client


def test_answers_have_the_headers_that_are_described_and_no_others_of_ours(sealed: httpx.Client) -> None:
    """Breaks: a program waits for a header that never comes, or nobody knows of one that does."""
    asked: list[dict[str, str]] = [{}, {"Range": "bytes=0-1"}, {"Range": "bytes=99999999-"}]
    asked += [{"If-None-Match": "*"}, {"If-Match": '"x"'}, {"Authorization": "none"}]
    seen = set()
    for method, path, operation in operations():
        if method not in ("get", "head") or "{request_id}" in path:
            continue
        for headers in asked:
            answer = sealed.request(method, placed(path), headers=headers)
            status = answer.status_code
            assert str(status) in operation["responses"] or status == 404 or status == 422, (path, status)
            described = headers_of(operation, status)
            told = {name for name in answer.headers if name in TOLD}
            assert told <= set(described), (method, path, status, told - set(described))
            missing = {name for name, must in described.items() if must} - set(answer.headers)
            assert not missing, (method, path, status, missing)
            seen.add(status)
    assert seen >= {200, 206, 304, 401, 412, 416}


def placed(path: str) -> str:
    """A path of the sealed session."""
    values = {"{session_id}": SESSION, "{chunk_id}": "0", "{index}": "0"}
    for name, value in values.items():
        path = path.replace(name, value)
    if path.endswith("/events"):
        path += "?follow=false"
    return path + ("?from=0" if path.endswith("/consistency") else "")
