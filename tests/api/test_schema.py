"""The running application against its own OpenAPI document: thousands of requests, as each role."""

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.api.conftest import Served
from tests.support.machine.waiting import PATIENCE_S

DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"
EVENTS, START = "/api/v1/sessions/{session_id}/events", "/recordings/start"
ROLES = ("USER", "NODE_OPERATOR", "AUDITOR", "ADMIN", "SUPER_ADMIN")
CROSSED = ("/chunks/process", "/chunks/batch", "/api/v1/sessions", "/api/v1/sessions/{session_id}", START)
"""Members that are each valid may not fit together, nor an ETag to its session; a cursor is signed."""

schema = schemathesis.openapi.from_path(DOCUMENT)


@schema.auth(refresh_interval=None, retry_on=[])
class Given:
    """Says that tokens are given. Cases are made before there is a server: the test puts a true one in."""

    def get(self, case: schemathesis.Case, context: schemathesis.AuthContext) -> str:
        return "Bearer none"

    def set(self, case: schemathesis.Case, data: str, context: schemathesis.AuthContext) -> None:
        case.headers["Authorization"] = data


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
    case.headers["Authorization"] = f"Bearer {next(tokens)}"
    bound(case)
    crossed = case.operation.path in CROSSED
    answer = case.call(base_url=served.url, timeout=PATIENCE_S)
    if case.operation.path == START and answer.status_code == 201:
        client.delete(f"/recordings/{answer.json()['session_id']}")
    case.validate_response(answer, excluded_checks=[positive_data_acceptance] if crossed else [])


def bound(case: schemathesis.Case) -> None:
    """Ask for no stream without an end, and for no picture that takes the whole machine to draw."""
    if case.operation.path == EVENTS and case.query.get("follow", True) in (True, "true"):
        case.query["follow"] = "false"
    if case.operation.path == START and isinstance(case.body, dict):
        config = case.body.get("recording_config")
        if isinstance(config, dict) and isinstance(config.get("resolution"), str):
            config["resolution"] = "320x240" if "x" in config["resolution"] else config["resolution"]
