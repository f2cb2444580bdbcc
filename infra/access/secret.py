"""Holds the secret of HS256 tokens: JWT_SECRET_KEY, or one that is made once in the data folder.

    jwt.key     64 hex digits; 0600; made once, never replaced

1. In production none is made: JWT_SECRET_KEY, or the keys of an auth service, must be given.
2. A crash while it is made leaves no file, or the whole one. Of two processes that begin at once, both read
   the file of the first.
"""

import re
import secrets
from functools import cached_property
from pathlib import Path

from infra.disk.data_dir import make_writable_folder
from infra.disk.durable import write_once
from schemas.errors import Unavailable

NAME = "jwt.key"
SECRET_BYTES = 32
_CONTENT = re.compile(rb"[0-9a-f]{64}\s*")


class TokenSecret:
    """The secret of one installation. given: JWT_SECRET_KEY; may_make: whether a file may stand for it."""

    def __init__(self, given: str, folder: Path, *, may_make: bool) -> None:
        self._given, self._path, self._may_make = given, folder / NAME, may_make

    @property
    def exists(self) -> bool:
        """Whether there is a secret, or one may be made."""
        return bool(self._given) or self._may_make

    @cached_property
    def value(self) -> bytes:
        """The secret. Raises Unavailable (access.secret), Misuse (config.path)."""
        assert self.exists
        if self._given:
            return self._given.encode()
        try:
            if not self._path.exists():
                make_writable_folder(self._path.parent)
                write_once(self._path, secrets.token_hex(SECRET_BYTES).encode() + b"\n")
            content = self._path.read_bytes()
        except OSError as error:
            raise Unavailable(
                f"the secret of tokens cannot be read or made: {self._path}: {error.strerror}",
                code="access.secret",
            ) from None
        if _CONTENT.fullmatch(content) is None:
            raise Unavailable(
                f"{self._path} is damaged",
                code="access.secret",
                hint="remove it: a new one is made at the next start, and all tokens of the old one end",
            )
        return bytes.fromhex(content.decode())
