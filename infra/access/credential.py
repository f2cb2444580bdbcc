"""Finds the token that a process sends with its commands: LUCID_TOKEN, a file, or the operator's file.

The file is read again when it changes: a process that runs on follows a token that is renewed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from schemas.access import TOKEN_MOST_BYTES
from schemas.config.access import AccessSettings
from schemas.errors import Unreadable
from schemas.ports.access import NO_MEMBERS

ADMIN_FILE = "admin.token"


class FileCredential:
    """The port Credential over one file. required: whether a missing file is an error."""

    def __init__(self, path: Path, *, required: bool) -> None:
        self._path, self._required = path, required
        self._seen: tuple[int, int, int] = (0, 0, 0)
        self._token = ""

    def __call__(self, name: str = "", body: Mapping[str, Any] = NO_MEMBERS, /) -> str:
        try:
            found = self._path.stat()
            seen = found.st_ino, found.st_mtime_ns, found.st_size
            if seen != self._seen:
                with self._path.open("rb") as file:
                    self._token = file.read(TOKEN_MOST_BYTES + 1).decode("ascii", "replace").strip()
                self._seen = seen
        except OSError as error:
            if not self._required:
                return ""
            raise Unreadable(
                f"the token cannot be read: {self._path}: {error.strerror}",
                code="access.file",
                hint="LUCID_TOKEN_FILE names the file",
            ) from None
        return self._token


def own_credential(settings: AccessSettings, folder: Path) -> "FileCredential | GivenToken":
    """Return the credential of this process. folder: the data folder."""
    if settings.token:
        return GivenToken(settings.token)
    if settings.token_file is not None:
        return FileCredential(settings.token_file.expanduser(), required=True)
    return FileCredential(folder / ADMIN_FILE, required=False)


class GivenToken:
    """The port Credential over one token."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, name: str = "", body: Mapping[str, Any] = NO_MEMBERS, /) -> str:
        return self._token
