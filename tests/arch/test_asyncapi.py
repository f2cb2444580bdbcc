"""docs/asyncapi.json is the document of the commands as they are."""

import json
import re
from typing import Any

from handlers.access.commands import COMMANDS
from streams.control.nats_service import document
from streams.control.requests import REQUESTS
from tests.arch.test_errors_page import DOCS


def test_the_asyncapi_document_is_up_to_date() -> None:
    """Breaks: a client is generated from commands that are not there. Cure: just docs."""
    written = json.loads((DOCS / "asyncapi.json").read_text())
    assert written == json.loads(json.dumps(document(COMMANDS, written["info"]["version"]))), "just docs"


def test_every_command_has_its_subject_and_the_schema_of_its_request() -> None:
    """Breaks: somebody who writes a client has to read our source for the members of a request."""
    made: dict[str, Any] = document(COMMANDS, "1")
    assert {channel["address"] for channel in made["channels"].values()} == {
        f"lucid.cmd.{name}" for name in COMMANDS
    }
    text = json.dumps(made)
    for path in re.findall(r'"\$ref": "#/([^"]*)"', text):
        found = made
        for step in path.split("/"):
            found = found[step]
    assert COMMANDS.keys() == REQUESTS.keys()
    payloads = made["components"]["schemas"]
    assert all("token" in payloads[f"{name}:Message:Payload"]["properties"] for name in COMMANDS)
    assert payloads["stop:Message:Payload"]["required"] == ["session"]
    assert payloads["list:Message:Payload"]["properties"].keys() >= {"state", "cursor", "limit"}
