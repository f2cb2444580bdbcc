"""Finds the servers and tools that `just services` builds."""

import os
import shutil
from pathlib import Path

from tests.support.machine.absent import absent


def built(name: str) -> str:
    """The program: <NAME>_BIN, on PATH, or in the cache. Without it the test is skipped; in CI it fails."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lucid-sessions" / "services"
    places = (os.environ.get(f"{name.upper()}_BIN"), shutil.which(name), shutil.which(cache / name))
    found = next(filter(None, places), None)
    if found is None:
        absent(name, f"uv run just services {name}")
    return str(found)
