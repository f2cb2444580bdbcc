"""The reader's own primitives agree with published vectors and with second implementations."""

from __future__ import annotations

import gzip
import hashlib

import brotli
import lz4.frame
import pytest
import reader_crypto as crypto
import zstandard
from reader_bytes import Bad, decompress
from writer_host import Host, Plan, secret, signing


def test_xchacha_equals_the_draft() -> None:
    """Breaks: no other implementation opens our chunks (draft-irtf-cfrg-xchacha-03, A.3.1)."""
    plain = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
        b"sunscreen would be it."
    )
    key, nonce = bytes(range(0x80, 0xA0)), bytes(range(0x40, 0x58))
    aad = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    sealed = crypto.xchacha_seal(key, nonce, plain, aad)
    assert sealed[:16].hex() == "bd6d179d3e83d43b9576579493c0e939"
    assert sealed[-16:].hex() == "c0875924c1c7987947deafd8780acf49"
    assert crypto.xchacha_open(key, nonce, sealed, aad) == plain


def test_hchacha_equals_the_draft() -> None:
    """Breaks: the subkey is another (draft-irtf-cfrg-xchacha-03, 2.2.1)."""
    nonce = bytes.fromhex("000000090000004a0000000031415927")
    want = "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"
    assert crypto.hchacha20(bytes(range(32)), nonce).hex() == want


def test_hpke_by_parts_opens_what_a_library_sealed() -> None:
    """Breaks: the document's description of X-Wing HPKE is not what hosts use."""
    intake = crypto.IntakeKey(secret("data key"))
    host = Host(intake.public, Plan(()))
    envelope = host._envelope(b"info", secret("part"))
    assert intake.open(envelope[:1120], envelope[1120:], b"info") == secret("part")
    for place in (0, 1087, 1088, 1119, 1120, 1167):
        broken = bytearray(envelope)
        broken[place] ^= 1
        with pytest.raises(Bad, match=r"part\.key"):
            intake.open(bytes(broken[:1120]), bytes(broken[1120:]), b"info")
    with pytest.raises(Bad, match=r"part\.key"):
        intake.open(envelope[:1088] + bytes(32), envelope[1120:], b"info")


def test_expand_equals_rfc_5869_done_by_hand() -> None:
    """Breaks: keys of 33 to 96 bytes are derived another way."""
    key, info = bytes(range(32)), b"info"
    block = key + bytes(96)
    inner, outer = bytes(b ^ 0x36 for b in block), bytes(b ^ 0x5C for b in block)

    def mac(data: bytes) -> bytes:
        return hashlib.blake2b(outer + hashlib.blake2b(inner + data).digest()).digest()

    one = mac(info + b"\1")
    assert crypto.expand(key, info, 96) == (one + mac(one + info + b"\2"))[:96]


def test_merkle_has_the_shape_of_rfc_9162() -> None:
    """Breaks: proofs of other implementations do not fit our roots."""

    def by_definition(leaves: list[bytes]) -> bytes:
        if len(leaves) == 1:
            return leaves[0]
        split = 1 << (len(leaves) - 1).bit_length() - 1
        return crypto.h(b"\1" + by_definition(leaves[:split]) + by_definition(leaves[split:]))

    leaves = [crypto.h(bytes([n])) for n in range(40)]
    for count in range(1, 41):
        assert crypto.merkle_root(leaves[:count]) == by_definition(leaves[:count])
    assert crypto.merkle_root([]) == crypto.h(b"")


def test_signatures_outside_the_strict_set_are_refused() -> None:
    """Breaks: one signature is good for one verifier and false for another."""
    key, public = signing("host")
    good = key.sign(b"text")
    assert crypto.signature_is_good(public, b"text", good)
    s = int.from_bytes(good[32:], "little")
    assert not crypto.signature_is_good(
        public, b"text", good[:32] + (s + crypto.ED25519_L).to_bytes(32, "little")
    )
    identity = (1).to_bytes(32, "little")
    assert not crypto.signature_is_good(identity, b"text", identity + bytes(32))
    assert not crypto.signature_is_good(public, b"text", identity + good[32:])
    high = crypto.ED25519_P + 3
    assert not crypto.signature_is_good(high.to_bytes(32, "little"), b"text", good)
    assert not crypto.signature_is_good(public, b"text", good[:-1])


def test_the_small_order_points_are_these() -> None:
    """Breaks: a key of small order, under which everything verifies, is accepted."""
    p, d = crypto.ED25519_P, -121665 * pow(121666, -1, 2**255 - 19)

    def add(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
        product = d * a[0] * b[0] * a[1] * b[1]
        x = (a[0] * b[1] + a[1] * b[0]) * pow(1 + product, -1, p)
        return x % p, (a[1] * b[1] + a[0] * b[0]) * pow(1 - product, -1, p) % p

    for y in crypto.SMALL_ORDER_Y:
        square = (y * y - 1) * pow(d * y * y + 1, -1, p) % p
        x = pow(square, (p + 3) // 8, p)
        x = x if x * x % p == square else x * pow(2, (p - 1) // 4, p) % p
        assert x * x % p == square
        point = (x, y)
        for _ in range(3):
            point = add(point, point)
        assert point == (0, 1)
    assert len(crypto.SMALL_ORDER_Y) == 5


PLAIN = bytes(range(256)) * 300


def payloads() -> dict[int, bytes]:
    return {
        1: zstandard.ZstdCompressor(level=3).compress(PLAIN),
        2: lz4.frame.compress(PLAIN),
        3: brotli.compress(PLAIN),
        4: gzip.compress(PLAIN, mtime=0),
    }


@pytest.mark.parametrize("codec", [1, 2, 3, 4])
def test_a_payload_is_one_frame_of_exactly_the_plain_length(codec: int) -> None:
    """Breaks: bytes hide behind a frame, or a bomb goes off in the reader."""
    good = payloads()[codec]
    assert decompress(codec, good, len(PLAIN)) == PLAIN
    for bad in (good + b"x", good + good, good[:-1], good[:-5], b"", b"x" + good):
        with pytest.raises(Bad, match=r"chunk\.codec"):
            decompress(codec, bad, len(PLAIN))
    for length in (len(PLAIN) - 1, len(PLAIN) + 1, 0):
        with pytest.raises(Bad, match=r"chunk\.codec"):
            decompress(codec, good, length)


def test_zstd_frames_with_a_dictionary_or_a_wide_window_are_refused() -> None:
    """Breaks: a chunk cannot be opened without something that is not in the evidence."""
    dictionary = zstandard.train_dictionary(2048, [PLAIN[n : n + 700] for n in range(0, 60000, 100)])
    with pytest.raises(Bad):
        decompress(1, zstandard.ZstdCompressor(dict_data=dictionary).compress(PLAIN), len(PLAIN))
    wide = zstandard.ZstdCompressionParameters.from_level(3, window_log=25)
    stream = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    framed = stream.compress(PLAIN) + stream.flush()
    assert zstandard.get_frame_parameters(framed).window_size > 16 << 20
    with pytest.raises(Bad):
        decompress(1, framed, len(PLAIN))
    unchecked = zstandard.ZstdCompressor(write_checksum=True, write_content_size=False).compress(PLAIN)
    assert decompress(1, unchecked, len(PLAIN)) == PLAIN


def test_a_key_file_opens_only_whole_and_where_it_belongs() -> None:
    """Breaks: a data key can be moved to another session, or opened with a sector missing."""
    master, uid, dek = secret("master"), bytes(range(16)), secret("dek")
    whole = crypto.make_key_file(master, 3, uid, dek, bytes(range(24)), bytes(3980))
    assert len(whole) == 4096
    assert crypto.open_key_file(master, uid, whole) == dek
    for place in (*range(120), *range(127, 4096, 128)):
        broken = bytearray(whole)
        broken[place] ^= 1
        with pytest.raises(Bad, match=r"keys\.file"):
            crypto.open_key_file(master, uid, bytes(broken))
    for other in (b"", whole[:-1], whole + b"\0"):
        with pytest.raises(Bad, match=r"keys\.file"):
            crypto.open_key_file(master, uid, other)
    with pytest.raises(Bad, match=r"keys\.file"):
        crypto.open_key_file(master, bytes(16), whole)
