import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.crypto import primitives
from schemas.errors import EvidenceFalse
from schemas.format.chunk_header import Suite

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "xchacha20.json").read_text())


def _hmac(key: bytes, message: bytes) -> bytes:
    """HMAC over BLAKE2b-512 with its block of 128 bytes, from RFC 2104's own words."""
    key = key.ljust(128, b"\0")
    inner = hashlib.blake2b(bytes(k ^ 0x36 for k in key) + message).digest()
    return hashlib.blake2b(bytes(k ^ 0x5C for k in key) + inner).digest()


@pytest.mark.parametrize("count", [0, 1, 16, 63, 64, 65, 96, 128, 129, 255 * 64])
def test_expand_is_rfc_5869_over_blake2b(count: int) -> None:
    """Breaks: every key of every session."""
    key, wanted, block = bytes(range(32)), b"", b""
    for number in range(1, 256):
        block = _hmac(key, block + b"info" + bytes((number,)))
        wanted += block
    assert primitives.expand(key, b"info", count) == wanted[:count]


def test_hchacha20_meets_the_drafts_vector() -> None:
    """Breaks: every wrapped key and every chunk of suite 1."""
    vector = VECTORS["hchacha20"]
    got = primitives.hchacha20(bytes.fromhex(vector["key"]), bytes.fromhex(vector["nonce"]))
    assert got.hex() == vector["subkey"]


def test_xchacha20_poly1305_meets_the_drafts_vector() -> None:
    """Breaks: every wrapped key and every chunk of suite 1."""
    key, nonce, plain, aad, sealed = (
        bytes.fromhex(VECTORS["aead"][name]) for name in ("key", "nonce", "plain", "aad", "sealed")
    )
    assert primitives.xchacha20poly1305_encrypt(key, nonce, plain, aad) == sealed
    assert primitives.xchacha20poly1305_decrypt(key, nonce, sealed, aad) == plain


def _rotl(x: int, n: int) -> int:
    return (x << n | x >> 32 - n) & 0xFFFFFFFF


def _hchacha20_by_rounds(key: bytes, nonce: bytes) -> bytes:
    """HChaCha20 as the draft tells it: twenty rounds, no adding, words 0-3 and 12-15."""
    raw = b"expand 32-byte k" + key + nonce
    s = [int.from_bytes(raw[at : at + 4], "little") for at in range(0, 64, 4)]
    columns = [(0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)]
    diagonals = [(0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]
    for a, b, c, d in (columns + diagonals) * 10:
        for one, two, three, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            s[one] = (s[one] + s[two]) & 0xFFFFFFFF
            s[three] = _rotl(s[three] ^ s[one], turn)
    return b"".join(word.to_bytes(4, "little") for word in s[:4] + s[12:])


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=16, max_size=16))
def test_hchacha20_equals_its_rounds(key: bytes, nonce: bytes) -> None:
    """Breaks: keys for which a borrow or a wrap-around was forgotten."""
    assert primitives.hchacha20(key, nonce) == _hchacha20_by_rounds(key, nonce)


@pytest.mark.parametrize("suite", list(Suite))
@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 63, 64, 65, 100_000])
def test_what_is_sealed_opens_and_nothing_else_does(suite: Suite, length: int) -> None:
    """Breaks: recordings could be lost, or changed unseen."""
    key, plain = bytes(range(32)), bytes(length)
    nonce = bytes(range(24)) if suite is Suite.XCHACHA20_POLY1305 else bytes(range(12)) + bytes(12)
    sealed = bytearray(length + 16)
    primitives.seal_into(suite, key, nonce, plain, b"aad", memoryview(sealed))
    assert primitives.open_sealed(suite, key, nonce, sealed, b"aad") == plain
    changed = bytes((sealed[0] ^ 1,)) + sealed[1:]
    for bad in (
        (bytes(32), nonce, bytes(sealed), b"aad"),
        (key, bytes((1,)) + nonce[1:], bytes(sealed), b"aad"),
        (key, nonce, changed, b"aad"),
        (key, nonce, bytes(sealed), b"aax"),
        (key, nonce, bytes(sealed[:-1]), b"aad"),
    ):
        with pytest.raises(EvidenceFalse) as caught:
            primitives.open_sealed(suite, *bad)
        assert caught.value.code == "crypto.tag"


@pytest.mark.parametrize("length", [12, 23, 25])
def test_a_nonce_of_another_length_is_a_mistake(length: int) -> None:
    """Breaks: a short nonce would be repeated under one key."""
    with pytest.raises(ValueError, match="nonce"):
        primitives.xchacha20poly1305_encrypt(bytes(32), bytes(length), b"", b"")
