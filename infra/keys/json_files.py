"""Reads and makes the JSON files of `keys/`, and refuses a missing or damaged one by its path.

Every file is made once, durably, and never overwritten.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra.keys.mirrored_files import key_blobs
from schemas.errors import Unavailable

Members = dict[str, Any]


class JsonFiles:
    """The small files of the folder `keys/`, and of its mirror, if there is one."""

    def __init__(self, folder: Path, mirror: Path | None = None) -> None:
        self.folder = folder
        self.blobs = key_blobs(folder, mirror)

    def names(self, prefix: str) -> list[str]:
        return self.blobs.list(prefix)

    def make(self, name: str, members: Members) -> bool:
        """Make a file; False: it exists already, and stays as it is."""
        return self.blobs.put(name, json.dumps(members).encode()) == "created"

    def read(self, name: str) -> Members:
        """Raises Unavailable (keys.lost, keys.damaged)."""
        raw = self.blobs.read(name)
        if raw is None:
            raise Unavailable(
                f"{self.folder / name} is missing",
                code="keys.lost",
                hint="put it back: lucid keys restore FILE",
            )
        return parsed(raw, self.folder / name)


def damaged(path: Path) -> Unavailable:
    return Unavailable(f"{path} is damaged", code="keys.damaged", hint="put it back: lucid keys restore FILE")


def lost(folder: Path, kind: str) -> Unavailable:
    """Return the error for a folder that must hold a key of this kind."""
    return Unavailable(
        f"{folder} holds no {kind}, and a running installation makes no new one",
        code="keys.lost",
        hint="put keys/ back: lucid keys restore FILE",
    )


def parsed(raw: bytes, path: Path, refuse: Callable[[Path], Unavailable] = damaged) -> Members:
    """Return the members of one JSON object. Raises the error of `refuse`."""
    try:
        members = json.loads(raw)
    except ValueError:
        raise refuse(path) from None
    if not isinstance(members, dict):
        raise refuse(path)
    return members
