"""The running application against its own OpenAPI document: thousands of requests, as each role."""

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from tests.api.conftest import Served
from tests.support.machine.waiting import PATIENCE_S

DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"
ENDLESS = "/events|/recordings/start|/evidence"
"""Streams without an end, and a recording that runs for a year."""

ROLES = ("USER", "NODE_OPERATOR", "AUDITOR", "ADMIN", "SUPER_ADMIN")
CROSSED = ("/chunks/process", "/chunks/batch", "/api/v1/sessions", "/api/v1/sessions/{session_id}")
"""Members that are each valid may not fit together, nor an ETag to its session; a cursor is signed."""

schema = schemathesis.openapi.from_path(DOCUMENT).exclude(path_regex=ENDLESS)


@pytest.fixture(scope="module")
def tokens(served: Served) -> Iterator[str]:
    """Tokens of every role by turns, without an end; every second one of the administrator."""
    own = [served.token(role) for role in ROLES]
    admin = (served.data / "admin.token").read_text().strip()
    return cycle([token for one in own for token in (admin, one)])


@schema.parametrize()
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
def test_no_request_breaks_the_application(
    case: schemathesis.Case, served: Served, tokens: Iterator[str]
) -> None:
    """Breaks: a request of a stranger ends in an answer that the document does not know, or in a bug."""
    case.headers["Authorization"] = f"Bearer {next(tokens)}"
    crossed = case.operation.path in CROSSED
    case.call_and_validate(
        base_url=served.url,
        timeout=PATIENCE_S,
        # the token is ours, not a generated one: test_every_route_is_guarded sends none, and wrong ones
        excluded_checks=[ignored_auth, *([positive_data_acceptance] if crossed else [])],
    )
