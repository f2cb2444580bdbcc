"""Keeps the key that makes the tokens of the read models (handlers/crypto/blind_index.py).

    keys/index.json    {key}    32 random bytes

1. It is made once, durably, when it is first asked for; it outlives every rotation of the master key.
2. Nothing is lost with it: under a new key the read models are made again from the log.
"""

import secrets
from pathlib import Path

from infra.keys.json_files import JsonFiles, damaged

INDEX = "index.json"
KEY_BYTES = 32


class IndexKeyFile:
    """The index key of one folder `keys/`, and of its mirror. Making the object touches nothing."""

    def __init__(self, directory: Path, mirror: Path | None = None) -> None:
        self._files, self._path = JsonFiles(directory, mirror), directory / INDEX

    def read(self) -> bytes:
        """Return the key, made now if there is none. Of two processes at once one makes it.

        Raises Unavailable (keys.damaged).
        """
        if self._files.blobs.read(INDEX) is None:
            self._files.make(INDEX, {"key": secrets.token_bytes(KEY_BYTES).hex()})
        try:
            key = bytes.fromhex(self._files.read(INDEX)["key"])
        except (ValueError, LookupError, TypeError):
            raise damaged(self._path) from None
        if len(key) != KEY_BYTES:
            raise damaged(self._path)
        return key
