"""Keeps the versions of the master key, which wraps every session's data key.

    keys/master-<version:08>.json   {version, source: "file", key} or {version, source: "environment", check}
    keys/salt                       32 bytes, if ENCRYPTION_KEY is a passphrase

1. Every file is made once, durably, and never overwritten: if two processes start at once, one makes the key
   and the other reads it. Only `begin` makes the first version: a folder that lost its keys gets no new ones,
   and no new salt.
2. A master key from the environment is on no disk. Its versions are derived from ENCRYPTION_KEY, and a check
   value detects a wrong one before it wraps anything.
3. It returns raw keys; its callers decide about wrapping.
"""

import base64
import binascii
import secrets
from functools import cached_property
from pathlib import Path
from typing import Literal

from blake3 import blake3
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from infra.keys.json_files import JsonFiles, Members, lost
from schemas.errors import Denied, Misuse, Unavailable

KEY_BYTES = SALT_BYTES = 32
PASSPHRASE_LEAST = 12
"""Characters; a shorter passphrase is more often a mistake than a choice."""
ARGON2_PASSES, ARGON2_LANES, ARGON2_MEMORY_KIB = 3, 4, 64 * 1024
PBKDF2_ROUNDS = 600_000
DERIVE_CONTEXT, CHECK_CONTEXT = "lucid v1 master key", "lucid v1 master check"

Kdf = Literal["argon2id", "pbkdf2"]


class Keyring:
    """The folder `keys/` of a data directory. encryption_key: the text of ENCRYPTION_KEY; empty: unset.

    mirror: the second folder, if there is one.
    """

    def __init__(
        self, directory: Path, encryption_key: str = "", kdf: Kdf = "argon2id", mirror: Path | None = None
    ) -> None:
        self.directory = directory
        self._text, self._kdf = encryption_key, kdf
        self._files = JsonFiles(directory, mirror)

    def keks(self) -> dict[int, bytes]:
        """Read from the folder. Without ENCRYPTION_KEY the versions derived from it are missing."""
        found = {}
        for name in self._versions():
            members = self._files.read(name)
            key = self._key_of(members)
            if key is not None:
                found[members["version"]] = key
        return found

    def begin(self) -> tuple[int, bytes]:
        return self.newest() if self._versions() else self._add(1)

    def newest(self) -> tuple[int, bytes]:
        names = self._versions()
        if not names:
            raise lost(self.directory, "master key")
        members = self._files.read(names[-1])
        if self._text and members["source"] == "file":
            # ENCRYPTION_KEY was set since: new keys go under it; `keys rotate` re-wraps the old ones.
            return self._add(members["version"] + 1)
        key = self._key_of(members)
        if key is None:
            raise Denied(
                f"master key version {members['version']} needs ENCRYPTION_KEY, which is not set",
                code="keys.kek",
                hint="set ENCRYPTION_KEY to its earlier value",
            )
        return members["version"], key

    def checks(self) -> dict[int, bytes]:
        return {members["version"]: _check_of(members) for members in map(self._files.read, self._versions())}

    def add_version(self, above: int = 0) -> int:
        return self._add(max(self.newest()[0], above) + 1)[0]

    def _versions(self) -> list[str]:
        return self._files.names("master-")

    def _add(self, version: int) -> tuple[int, bytes]:
        """Make this version, or return the one that another process made meanwhile."""
        key = self._derived(version) if self._text else secrets.token_bytes(KEY_BYTES)
        members: Members = {"version": version, "source": "file", "key": key.hex()}
        if self._text:
            members = {"version": version, "source": "environment", "check": _check(key).hex()}
        # Only a durable version may wrap: if a crash took the key back, its sessions would be lost too.
        if self._files.make(f"master-{version:08}.json", members):
            return version, key
        return self.newest()

    def _key_of(self, members: Members) -> bytes | None:
        if members["source"] == "file":
            return bytes.fromhex(members["key"])
        if not self._text:
            return None
        key = self._derived(members["version"])
        if _check(key) != _check_of(members):
            raise Denied(
                f"ENCRYPTION_KEY differs from the one that made master key version {members['version']}",
                code="keys.master",
                hint="set ENCRYPTION_KEY to its earlier value",
            )
        return key

    def _derived(self, version: int) -> bytes:
        return blake3(
            self._master + version.to_bytes(4, "little"), derive_key_context=DERIVE_CONTEXT
        ).digest()

    @cached_property
    def _master(self) -> bytes:
        """32 bytes: decoded from base64, or derived from a passphrase."""
        try:
            raw = base64.b64decode(self._text, validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if len(raw) == KEY_BYTES:
            return raw
        if len(self._text) < PASSPHRASE_LEAST:
            raise Misuse(
                f"ENCRYPTION_KEY has {len(self._text)} characters (allowed: 32 bytes in base64, or a "
                f"passphrase of at least {PASSPHRASE_LEAST} characters)",
                code="config.encryption_key",
            )
        if all(self._files.read(name)["source"] == "file" for name in self._versions()):
            self._files.blobs.put("salt", secrets.token_bytes(SALT_BYTES))
        salt = self._files.blobs.read("salt")
        if salt is None:
            raise Unavailable(
                f"{self.directory / 'salt'} is missing, and ENCRYPTION_KEY needs it; it is never made again",
                code="keys.lost",
                hint="put keys/ back: lucid keys restore FILE",
            )
        return _stretch(self._text.encode(), salt, self._kdf)


def _check(key: bytes) -> bytes:
    return blake3(key, derive_key_context=CHECK_CONTEXT).digest(16)


def _check_of(members: Members) -> bytes:
    return (
        _check(bytes.fromhex(members["key"]))
        if members["source"] == "file"
        else bytes.fromhex(members["check"])
    )


def _stretch(passphrase: bytes, salt: bytes, kdf: Kdf) -> bytes:
    if kdf == "pbkdf2":
        return PBKDF2HMAC(SHA256(), KEY_BYTES, salt, PBKDF2_ROUNDS).derive(passphrase)
    return Argon2id(
        salt=salt,
        length=KEY_BYTES,
        iterations=ARGON2_PASSES,
        lanes=ARGON2_LANES,
        memory_cost=ARGON2_MEMORY_KIB,
    ).derive(passphrase)
