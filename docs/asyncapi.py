"""Prints the AsyncAPI document of all commands: `just docs` writes it to docs/asyncapi.json."""

import json
from importlib.metadata import version

from handlers.access.commands import COMMANDS
from streams.control.nats_service import document

if __name__ == "__main__":
    print(json.dumps(document(COMMANDS, version("lucid-sessions")), indent=1, sort_keys=True))
