"""Prints the OpenAPI document of all roles: `just docs` writes it to docs/openapi.json."""

import json
from importlib.metadata import version

from streams.api.app import routed

if __name__ == "__main__":
    print(json.dumps(routed(version("lucid-sessions")).openapi(), indent=1, sort_keys=True))
