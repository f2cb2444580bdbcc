"""Runs `lucid bench` of a checkout and returns its result."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[2]
"""This checkout."""

Result = dict[str, Any]


def bench(checkout: Path, arguments: Sequence[str], shards: str = "") -> Result:
    """The result of one `lucid bench` of a checkout. shards: SHARDS, unless empty.

    Its data directory is a temporary one, or a folder below LUCID_DATA if that is set: then it measures the
    disk of that folder.
    """
    program = checkout / ".venv/bin/lucid"
    if not program.exists():
        sys.exit(f"{program} is missing; run there: uv sync")
    with tempfile.TemporaryDirectory(prefix="lucid-bench-") as folder:
        environment = {"LUCID_DATA": folder, **os.environ, **({"SHARDS": shards} if shards else {})}
        command = [program, "bench", *arguments, "--json"]
        done = subprocess.run(command, cwd=checkout, env=environment, stdout=subprocess.PIPE)
    if done.returncode:  # it has said why
        sys.exit(f"lucid bench {' '.join(arguments)} of {checkout} ended with {done.returncode}")
    result: Result = json.loads(done.stdout)
    return result
