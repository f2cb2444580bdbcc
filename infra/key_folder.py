"""The name of an installation, kept in its `keys/` folder.

    keys/installation     16 random bytes, made at the first start
    keys/joined           empty; made when a log has named this folder: it belongs to that log for good

Both are made once, durably, and never overwritten.
"""

import secrets
from pathlib import Path

from infra.blobs_disk import DiskBlobs
from schemas.errors import Unavailable

NAME_BYTES = 16
INSTALLATION, JOINED = "installation", "joined"


class KeyFolder:
    """The folder `keys/` of a data directory."""

    def __init__(self, directory: Path) -> None:
        self.path = directory
        self._files = DiskBlobs(directory)

    def installation(self) -> bytes:
        name = self._files.read(INSTALLATION)
        if name is not None and len(name) != NAME_BYTES:
            raise Unavailable(
                f"{self.path / INSTALLATION} is damaged", code="keys.damaged", hint="restore it from a backup"
            )
        return name or b""

    def begin(self) -> None:
        self._files.put(INSTALLATION, secrets.token_bytes(NAME_BYTES))

    def joined(self) -> bool:
        return self._files.read(JOINED) is not None

    def join(self) -> None:
        self._files.put(JOINED, b"")
