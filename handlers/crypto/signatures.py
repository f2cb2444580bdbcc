"""Strict Ed25519: every verifier gives the same answer for a signature (format.md §1).

1. Refused before the equation: S ≥ L; a public key or R that is not canonical, or of small order.
2. The equation has no cofactor: OpenSSL computes R and compares encodings.
3. Each kind of signed message begins with its own prefix, so no signature fits two kinds.

Source: RFC 8032 §5.1.7; Chalkias, Garillot, Nikolaenko: Taming the many EdDSAs.
"""

from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE_BYTES = 64
PUBLIC_BYTES = 32
_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493
_SIGN = 1 << 255
_ORDER_8_Y = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_SMALL_ORDER_Y = frozenset({0, 1, _P - 1, _ORDER_8_Y, _P - _ORDER_8_Y})
"""y of the eight points whose order divides 8; both signs of each are refused."""
CACHED_KEYS = 1024


def public_bytes(private: Ed25519PrivateKey) -> bytes:
    """Return the raw public key, 32 bytes."""
    return private.public_key().public_bytes_raw()


def sign(private: Ed25519PrivateKey, prefix: bytes, message: bytes) -> bytes:
    return private.sign(prefix + message)


def verify_signature(public: bytes, message: bytes, signature: bytes, prefix: bytes = b"") -> bool:
    """Whether the key signed prefix ‖ message. Never raises, for any bytes."""
    if len(signature) != SIGNATURE_BYTES or not _good_point(signature[:32]):
        return False
    if int.from_bytes(signature[32:], "little") >= _L:
        return False
    key = _public_key(public)
    if key is None:
        return False
    try:
        key.verify(signature, prefix + message)
    except InvalidSignature:
        return False
    return True


@lru_cache(maxsize=CACHED_KEYS)
def _public_key(public: bytes) -> Ed25519PublicKey | None:
    if len(public) != PUBLIC_BYTES or not _good_point(public):
        return None
    try:
        return Ed25519PublicKey.from_public_bytes(public)
    except ValueError:
        return None


def _good_point(encoded: bytes) -> bool:
    """Whether a point is canonical and not of small order (x = 0 with a sign bit is: there y = ±1)."""
    y = int.from_bytes(encoded, "little") & (_SIGN - 1)
    return y < _P and y not in _SMALL_ORDER_Y
