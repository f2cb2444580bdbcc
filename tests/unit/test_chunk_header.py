from dataclasses import replace

import pytest

from schemas.errors import EvidenceFalse
from schemas.format import chunk_header as e

HEADER = e.ChunkHeader(
    e.Suite.AES_256_GCM,
    e.Codec.ZSTD,
    1,
    2,
    bytes(range(16)),
    3,
    4,
    1000,
    900,
    bytes(range(16, 32)),
    bytes(range(12)) + bytes(12),
    bytes(range(32)),
)


def test_a_header_says_the_same_after_packing_and_parsing() -> None:
    """Breaks: every chunk already stored."""
    raw = HEADER.pack()
    assert len(raw) == e.HEADER_BYTES == 128
    assert e.ChunkHeader.parse(raw) == HEADER
    assert HEADER.sealed == 128 + 900 + 16


@pytest.mark.parametrize(
    "header",
    [
        replace(HEADER, plain=e.MAX_PLAIN, payload=e.MAX_PLAIN),
        replace(HEADER, plain=900),
        replace(HEADER, codec=e.Codec.NONE, plain=0, payload=0),
        replace(HEADER, track=e.INDEX_TRACK, part=0),
        replace(HEADER, index=2**53 - 1, offset=2**53 - 1),
        replace(HEADER, suite=e.Suite.XCHACHA20_POLY1305, nonce=bytes(range(24))),
    ],
)
def test_a_header_at_a_border_is_taken(header: e.ChunkHeader) -> None:
    """Breaks: the largest, the smallest and the last chunk."""
    assert e.ChunkHeader.parse(header.pack()) == header


@pytest.mark.parametrize(
    "header",
    [
        replace(HEADER, plain=e.MAX_PLAIN + 1),
        replace(HEADER, plain=899),
        replace(HEADER, codec=e.Codec.NONE),
        replace(HEADER, track=2),
        replace(HEADER, track=e.INDEX_TRACK),
        replace(HEADER, index=2**53),
        replace(HEADER, offset=2**53),
        replace(HEADER, nonce=bytes(range(13)) + bytes(11)),
    ],
)
def test_a_header_out_of_bounds_is_refused(header: e.ChunkHeader) -> None:
    """Breaks: memory of whoever opens the chunk."""
    with pytest.raises(EvidenceFalse) as caught:
        e.ChunkHeader.parse(header.pack())
    assert caught.value.code == "chunk.header"


@pytest.mark.parametrize(
    ("at", "value"), [(0, 0), (4, 2), (5, 0), (5, 3), (6, 5), (7, 1), (8, 129), (9, 1), (10, 2)]
)
def test_a_header_with_one_wrong_byte_is_refused(at: int, value: int) -> None:
    """Breaks: bytes that mean nothing today could mean something tomorrow."""
    raw = bytearray(HEADER.pack())
    raw[at] = value
    with pytest.raises(EvidenceFalse):
        e.ChunkHeader.parse(bytes(raw))


@pytest.mark.parametrize("length", [0, 127, 129])
def test_a_header_of_another_length_is_refused(length: int) -> None:
    """Breaks: a cut file would be read past its end."""
    with pytest.raises(EvidenceFalse):
        e.ChunkHeader.parse(HEADER.pack()[:length] + bytes(max(0, length - 128)))
