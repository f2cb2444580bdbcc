"""The trust file, the tombstone and keys.json (format.md §10 to §12).

The form of the text is in schemas.format.document.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from schemas.format.document import Document, Strict
from schemas.types import Count, Hex16, Hex32, Label, TimeUs

MAX_KEYS_BYTES = 4 * 1024


class TrustKey(Strict):
    key: Hex32
    role: Literal["signer", "host"]
    name: Label
    from_us: TimeUs
    until_us: TimeUs
    revoked_us: TimeUs
    """0: not revoked."""


class TrustFile(Document):
    """The keys that an installation's root vouches for."""

    NAME: ClassVar[str] = "trust"

    type: Literal["lucid.trust"] = "lucid.trust"
    version: Literal[1] = 1
    serial: Count
    root: Hex32
    """The root's public key, which also signs."""
    issued_us: TimeUs
    expires_us: TimeUs
    keys: tuple[TrustKey, ...]


class Place(Strict):
    place: Label
    outcome: Label


class Tombstone(Document):
    """The record of a destroyed session."""

    NAME: ClassVar[str] = "tombstone"

    type: Literal["lucid.tombstone"] = "lucid.tombstone"
    version: Literal[1] = 1
    uid: Hex16
    dek_id: Hex16
    manifest: Hex32
    """H of the last manifest's envelope; zero: never sealed."""
    who: Label
    approver: Label
    reason: Label
    at_us: TimeUs
    places: tuple[Place, ...]
    backups_until_us: TimeUs


class Keys(Document):
    """keys.json of an evidence copy: with it the recording can be decrypted."""

    NAME: ClassVar[str] = "keys"

    uid: Hex16
    dek_id: Hex16
    dek: Annotated[Hex32, Field(repr=False)]

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        if len(raw) > MAX_KEYS_BYTES:
            cls._refuse(f"{len(raw)} bytes, allowed {MAX_KEYS_BYTES}")
        return super().parse(raw)
