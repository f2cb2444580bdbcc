"""The running application against its own OpenAPI document: thousands of generated requests."""

from pathlib import Path

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.api.conftest import Served
from tests.support.machine.waiting import PATIENCE_S

DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"
ENDLESS = "/events|/recordings/start|/evidence"
"""Streams without an end, and a recording that runs for a year."""

CROSSED = ("/chunks/process", "/chunks/batch", "/api/v1/sessions")
"""Members that are each valid may not fit together; a cursor is signed. A schema cannot tell that."""

schema = schemathesis.openapi.from_path(DOCUMENT).exclude(path_regex=ENDLESS)


@schema.parametrize()
@settings(max_examples=30, suppress_health_check=list(HealthCheck))
def test_no_request_breaks_the_application(case: schemathesis.Case, served: Served) -> None:
    """Breaks: a request of a stranger ends in an answer that the document does not know, or in a bug."""
    case.headers["Authorization"] = f"Bearer {(served.data / 'admin.token').read_text().strip()}"
    crossed = case.operation.path in CROSSED
    case.call_and_validate(
        base_url=served.url,
        timeout=PATIENCE_S,
        excluded_checks=[positive_data_acceptance] if crossed else None,
    )
