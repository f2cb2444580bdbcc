"""Derives every key of a session from its data key, the DEK (format.md §3).

    DEK ── Expand "lucid/v1/id", 16                       dek id
        ── Expand "lucid/v1/intake", 32                   seed of the intake pair (HPKE, X-Wing)
        ── Expand "lucid/v1/chunk\\0" ‖ header[0:72], 32   cs, the secret of one chunk
    cs  ── Expand "lucid/v1/seal\\0", 96                   key 32 ‖ K_nonce 32 ‖ commitment 32

1. This module neither stores a key nor decides when one is made.
2. cs opens its own chunk and no other.
"""

import hashlib
from functools import cached_property
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from handlers.crypto.primitives import KEY_BYTES, expand, random_bytes
from schemas.errors import EvidenceFalse, Misuse
from schemas.format.fragment import Fragment, Kind, PartBody

DEK_ID_BYTES = 16
INTAKE_BYTES = 1216
"""Public key of the intake pair: ML-KEM-768 1184 ‖ X25519 32."""
_MLKEM_BYTES = 1184
_SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


def new_key() -> bytes:
    """Return 32 fresh bytes: a DEK or a part key."""
    return random_bytes(KEY_BYTES)


def dek_id(dek: bytes) -> bytes:
    """Return the 16 bytes that name a DEK. They reveal nothing about it."""
    return expand(dek, b"lucid/v1/id", DEK_ID_BYTES)


class ChunkKeys(NamedTuple):
    """The keys that seal one chunk."""

    key: bytes
    nonce_key: bytes
    commitment: bytes


def chunk_secret(dek: bytes, named: bytes) -> bytes:
    """Return cs, 32 bytes. named: the first 72 bytes of the chunk's header."""
    return expand(dek, b"lucid/v1/chunk\0" + named, KEY_BYTES)


def seal_keys(cs: bytes) -> ChunkKeys:
    made = expand(cs, b"lucid/v1/seal\0", 96)
    return ChunkKeys(made[:32], made[32:64], made[64:])


class SessionKeys:
    """The keys derived from a session's DEK. The intake pair is derived at its first use."""

    def __init__(self, dek: bytes) -> None:
        self.dek = dek
        self.dek_id = dek_id(dek)
        self._opened = (b"", b"")
        """Head and key of the last opened part fragment: the next chunk is often of the same part."""

    def __repr__(self) -> str:
        return f"SessionKeys({self.dek_id.hex()})"

    @cached_property
    def _intake(self) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
        seed = expand(self.dek, b"lucid/v1/intake", 32)
        stretched = hashlib.shake_256(seed).digest(96)
        return (
            MLKEM768PrivateKey.from_seed_bytes(stretched[:64]),
            X25519PrivateKey.from_private_bytes(stretched[64:]),
        )

    @cached_property
    def intake_public(self) -> bytes:
        """The public key to which hosts seal their part keys, 1,216 bytes."""
        mlkem, x25519 = self._intake
        return mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()

    @cached_property
    def _hpke(self) -> hpke.MLKEM768X25519PrivateKey:
        return hpke.MLKEM768X25519PrivateKey(*self._intake)

    def open_part_key(self, fragment: Fragment) -> bytes:
        """Return the key of a part's data fragments. fragment: the part fragment.

        Raises Misuse (fragment.kind), EvidenceFalse (fragment.part_key: of another session, or changed).
        """
        if fragment.header.kind is not Kind.PART:
            raise Misuse(f"a {fragment.header.kind.name} fragment carries no key", code="fragment.kind")
        head, key = self._opened
        if head != fragment.head:
            key = self._decrypted(fragment)
            self._opened = fragment.head, key
        return key

    def _decrypted(self, fragment: Fragment) -> bytes:
        body = PartBody.parse(fragment.body)
        try:
            key = _SUITE.decrypt(
                body.enc + body.ciphertext, self._hpke, info=part_info(fragment.raw_header, body.settings)
            )
        except InvalidTag:
            key = b""
        if len(key) != KEY_BYTES:
            raise EvidenceFalse(
                f"the key of part {fragment.header.part} of track {fragment.header.track} does not open",
                code="fragment.part_key",
            )
        return key


def seal_part_key(intake_public: bytes, part_key: bytes, raw_header: bytes, settings: bytes) -> bytes:
    """Return enc 1120 ‖ ciphertext 48: the part key, sealed to the platform. Raises Misuse (keys.intake)."""
    if len(intake_public) != INTAKE_BYTES:
        raise Misuse(f"intake key of {len(intake_public)} bytes, wanted {INTAKE_BYTES}", code="keys.intake")
    public = hpke.MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(intake_public[:_MLKEM_BYTES]),
        X25519PublicKey.from_public_bytes(intake_public[_MLKEM_BYTES:]),
    )
    return _SUITE.encrypt(part_key, public, info=part_info(raw_header, settings))


def part_info(raw_header: bytes, settings: bytes) -> bytes:
    """Return the HPKE info that binds a part key to its fragment."""
    return b"lucid v1 part" + raw_header + settings
