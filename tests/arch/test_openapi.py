"""docs/openapi.json is the document of the application as it is."""

import json

from streams.api.app import routed
from tests.arch.test_errors_page import DOCS


def test_the_openapi_document_is_up_to_date() -> None:
    """Breaks: a client is generated from routes that are not there. Cure: just docs."""
    written = json.loads((DOCS / "openapi.json").read_text())
    assert written == json.loads(json.dumps(routed(written["info"]["version"]).openapi())), "just docs"
