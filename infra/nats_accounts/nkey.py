"""Writes and reads Ed25519 keys in the text form of NATS (nkeys).

    public   base32(kind ‖ 32 bytes ‖ CRC-16)              begins with O, A or U;
    seed     base32(18·8 + kind»5, kind·8 ‖ 32 bytes ‖ CRC-16)   begins with SO, SA or SU

1. The kind of a key is one byte: operator, account or user. It decides the first letter of the text.
2. CRC-16 is XMODEM's, little-endian, over everything before it.
Source: github.com/nats-io/nkeys (strkey.go, crc16.go).
"""

import base64
import binascii
import secrets
from enum import IntEnum
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SEED = 18 << 3
RAW_BYTES, CRC_BYTES = 32, 2
PUBLIC_BYTES, SEED_BYTES = 1 + RAW_BYTES + CRC_BYTES, 2 + RAW_BYTES + CRC_BYTES


class Kind(IntEnum):
    """The first byte of a public key, before base32."""

    OPERATOR = 14 << 3
    ACCOUNT = 0
    USER = 20 << 3


class BadKey(ValueError):
    """The text is no key of the wanted kind. Repeats nothing of it."""


class Nkey:
    """One private key and its kind."""

    def __init__(self, kind: Kind, raw: bytes) -> None:
        """raw: the 32 bytes of the seed."""
        self.kind: Final = kind
        self.raw: Final = raw
        self._key = Ed25519PrivateKey.from_private_bytes(raw)
        self.public: Final = public_text(kind, self._key.public_key().public_bytes_raw())

    @classmethod
    def new(cls, kind: Kind) -> "Nkey":
        return cls(kind, secrets.token_bytes(RAW_BYTES))

    @classmethod
    def read(cls, kind: Kind, seed: str) -> "Nkey":
        """Raises BadKey."""
        body = _checked(seed, SEED_BYTES)
        if bytes(body[:2]) != _seed_head(kind):
            raise BadKey(f"it is no seed of kind {kind.name.lower()}")
        return cls(kind, body[2:])

    @property
    def seed(self) -> str:
        """The secret text. Not for logs."""
        return _text(_seed_head(self.kind) + self.raw)

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)


def public_text(kind: Kind, raw: bytes) -> str:
    return _text(bytes([kind]) + raw)


def checked_public(kind: Kind, text: str) -> str:
    """Return the text of a public key unchanged. Raises BadKey."""
    if _checked(text, PUBLIC_BYTES)[0] != kind:
        raise BadKey(f"it is no public key of kind {kind.name.lower()}")
    return text


def _seed_head(kind: Kind) -> bytes:
    return bytes([SEED | kind >> 5, (kind & 31) << 3])


def _text(body: bytes) -> str:
    checked = body + binascii.crc_hqx(body, 0).to_bytes(CRC_BYTES, "little")
    return base64.b32encode(checked).decode().rstrip("=")


def _checked(text: str, size: int) -> bytes:
    """The bytes of a text, without the checksum. Raises BadKey."""
    if len(text) > 2 * size:
        raise BadKey("it is too long for a key")
    try:
        whole = base64.b32decode(text + "=" * (-len(text) % 8))
    except (ValueError, binascii.Error):
        raise BadKey("it is no base32") from None
    body, found = whole[:-CRC_BYTES], whole[-CRC_BYTES:]
    # loose bits in the last letter would give one key a second name
    if len(whole) != size or binascii.crc_hqx(body, 0).to_bytes(CRC_BYTES, "little") != found:
        raise BadKey("it is incomplete or mistyped")
    if _text(body) != text:
        raise BadKey("it is not in the one form of a key")
    return body
