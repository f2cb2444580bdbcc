"""The running application against its own OpenAPI document: thousands of requests, as each role."""

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from tests.api.conftest import Served
from tests.support.machine.waiting import PATIENCE_S

DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"
EVENTS, START = "/api/v1/sessions/{session_id}/events", "/recordings/start"
ROLES = ("USER", "NODE_OPERATOR", "AUDITOR", "ADMIN", "SUPER_ADMIN")
CROSSED = (
    *("/chunks/process", "/chunks/batch", "/chunks/{session_id}/{index}"),
    *("/api/v1/sessions", "/api/v1/sessions/{session_id}", START),
)
"""Valid members may not fit together, nor an ETag to its session; a cursor is signed, a chunk sealed."""

schema = schemathesis.openapi.from_path(DOCUMENT)


@pytest.fixture(scope="module")
def tokens(served: Served) -> Iterator[str]:
    """Tokens of every role by turns, without an end; every second one of the administrator."""
    own = [served.token(role) for role in ROLES]
    admin = (served.data / "admin.token").read_text().strip()
    return cycle([token for one in own for token in (admin, one)])


@schema.parametrize()
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
def test_no_request_breaks_the_application(
    case: schemathesis.Case, served: Served, tokens: Iterator[str], client: httpx.Client
) -> None:
    """Breaks: a request of a stranger ends in an answer that the document does not know, or in a bug."""
    bound(case)
    given = {"Authorization": f"Bearer {next(tokens)}"}
    answer = case.call(base_url=served.url, headers=given, timeout=PATIENCE_S)
    if case.operation.path == START and answer.status_code == 201:
        client.delete(f"/recordings/{answer.json()['session_id']}")
    case.validate_response(answer, headers=given, excluded_checks=excluded(case))


def excluded(case: schemathesis.Case) -> list[Any]:
    """The checks that this case cannot pass or fail."""
    found = [positive_data_acceptance] if case.operation.path in CROSSED else []
    if case.meta is not None and case.meta.is_negative_at(ParameterLocation.HEADER):
        found.append(negative_data_rejection)  # its wrong header may be the one that our token replaces
    return found


def bound(case: schemathesis.Case) -> None:
    """Ask for no stream without an end, and for no picture that takes the whole machine to draw."""
    if case.operation.path == EVENTS and case.query.get("follow", True) in (True, "true"):
        case.query["follow"] = "false"
    if case.operation.path == START and isinstance(case.body, dict):
        config = case.body.get("recording_config")
        if isinstance(config, dict) and isinstance(config.get("resolution"), str):
            config["resolution"] = "320x240" if "x" in config["resolution"] else config["resolution"]
