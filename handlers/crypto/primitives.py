"""The cryptographic primitives: Expand, XChaCha20-Poly1305, AES-256-GCM (format.md §1, §6).

1. Ciphers and digests come from `cryptography`, `hashlib` and `blake3`; this module only composes them.
2. `seal_into` writes into the caller's buffer. Both directions run without the interpreter's lock.
3. handlers/ gets random bytes from `random_bytes` alone.

Source: RFC 5869 §2.3, RFC 8439, draft-irtf-cfrg-xchacha-03 §2.
"""

import hmac
import secrets
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from schemas.errors import EvidenceFalse
from schemas.format.chunk_header import Suite
from schemas.format.digest import Buffer

KEY_BYTES = 32
XNONCE_BYTES = 24
GCM_NONCE_BYTES = 12
TAG_BYTES = 16
_SIGMA = struct.unpack("<4I", b"expand 32-byte k")
_WORDS = struct.Struct("<16I")
_EIGHT = struct.Struct("<8I")
_BLAKE2B_BYTES = 64


def random_bytes(count: int) -> bytes:
    """Return random bytes from the operating system."""
    return secrets.token_bytes(count)


def expand(key: bytes, info: bytes, count: int) -> bytes:
    """Return Expand(key, info, count): HKDF-Expand with HMAC over BLAKE2b-512; count ≤ 16,320 bytes."""
    made = block = b""
    for number in range(1, -(-count // _BLAKE2B_BYTES) + 1):
        block = hmac.digest(key, block + info + bytes((number,)), "blake2b")
        made += block
    return made[:count]


def hchacha20(key: bytes, nonce: bytes) -> bytes:
    """Return the 32-byte subkey for a 16-byte nonce.

    A keystream block is the permuted state plus the state itself. Subtracting constants and nonce words
    leaves the eight words of HChaCha20.
    """
    block = Cipher(ChaCha20(key, nonce), mode=None).encryptor().update(bytes(64))
    words = _WORDS.unpack(block)
    first = (w - s for w, s in zip(words[:4], _SIGMA, strict=True))
    last = (w - n for w, n in zip(words[12:], struct.unpack("<4I", nonce), strict=True))
    return _EIGHT.pack(*(word & 0xFFFFFFFF for word in (*first, *last)))


def seal_into(suite: Suite, key: bytes, nonce: bytes, plain: Buffer, aad: bytes, buffer: memoryview) -> None:
    """Write ciphertext ‖ tag over `buffer` (len(plain) + 16 bytes). nonce: 24 bytes, as in a chunk header."""
    if suite == Suite.XCHACHA20_POLY1305:
        _chacha(key, nonce).encrypt_into(bytes(4) + nonce[16:], plain, aad, buffer)
    else:
        AESGCM(key).encrypt_into(nonce[:GCM_NONCE_BYTES], plain, aad, buffer)


def open_sealed(suite: Suite, key: bytes, nonce: bytes, sealed: Buffer, aad: bytes) -> bytes:
    """Return the plain bytes of ciphertext ‖ tag. Raises EvidenceFalse (crypto.tag)."""
    try:
        if suite == Suite.XCHACHA20_POLY1305:
            return _chacha(key, nonce).decrypt(bytes(4) + nonce[16:], sealed, aad)
        return AESGCM(key).decrypt(nonce[:GCM_NONCE_BYTES], sealed, aad)
    except InvalidTag:
        raise EvidenceFalse("authentication tag does not fit", code="crypto.tag") from None


def xchacha20poly1305_encrypt(key: bytes, nonce: bytes, plain: Buffer, aad: bytes) -> bytes:
    """Return ciphertext ‖ tag. nonce: 24 bytes."""
    return _chacha(key, nonce).encrypt(bytes(4) + nonce[16:], plain, aad)


def xchacha20poly1305_decrypt(key: bytes, nonce: bytes, sealed: Buffer, aad: bytes) -> bytes:
    """Return the plain bytes. nonce: 24 bytes. Raises EvidenceFalse (crypto.tag)."""
    return open_sealed(Suite.XCHACHA20_POLY1305, key, nonce, sealed, aad)


def same(a: bytes, b: bytes) -> bool:
    """Whether two secrets are equal, in constant time."""
    return hmac.compare_digest(a, b)


def _chacha(key: bytes, nonce: bytes) -> ChaCha20Poly1305:
    if len(nonce) != XNONCE_BYTES:
        raise ValueError(f"nonce of {len(nonce)} bytes, wanted {XNONCE_BYTES}")
    return ChaCha20Poly1305(hchacha20(key, nonce[:16]))
