"""The header of a sealed chunk: header 128 (all of it AAD) ‖ ciphertext ‖ tag 16 (format.md §6).

    off size field                                    off size field
      0    4 magic LSCH                                32    8 index
      4    1 version 1                                 40    8 offset within track
      5    1 suite                                     48    4 plain length ≤ 16 MiB
      6    1 codec                                     52    4 payload length ≤ plain length
      7    1 flags 0                                   56   16 dek id
      8    2 header length 128                         72   24 nonce
     10    2 track                                     96   32 key commitment
     12    4 part
     16   16 uid

1. Little-endian. An unknown value, or one out of bounds, is EvidenceFalse (chunk.header).
2. This module knows the bytes, not the keys.
3. The tables of levels decide no byte of evidence: a session freezes its level when it is created.
"""

import struct
from dataclasses import dataclass, fields
from enum import IntEnum
from operator import attrgetter
from typing import Literal, NoReturn, Protocol, get_args

from schemas.errors import EvidenceFalse
from schemas.format.digest import Buffer
from schemas.format.jcs import INT_LIMIT

MAGIC = b"LSCH"
VERSION = 1
HEADER = struct.Struct("<4sBBBBHHI16sQQII16s24s32s")
HEADER_BYTES = HEADER.size
NAMED_BYTES = 72
"""The first bytes, which name the chunk; its secret and nonce depend on them."""
TAG_BYTES = 16
MIB = 1 << 20
MAX_PLAIN = 16 << 20
MAX_SEALED = HEADER_BYTES + MAX_PLAIN + TAG_BYTES
INDEX_TRACK = 0xFFFF
"""Track of the index chunks."""


class Suite(IntEnum):
    XCHACHA20_POLY1305 = 1
    AES_256_GCM = 2


class Codec(IntEnum):
    NONE = 0
    ZSTD = 1
    LZ4 = 2
    BROTLI = 3
    GZIP = 4


CodecName = Literal["none", "zstd", "lz4", "brotli", "gzip"]
SuiteName = Literal["xchacha20-poly1305", "aes-256-gcm"]
"""As settings and the API write a codec and a suite, in the order of their numbers."""
SUITES: dict[SuiteName, Suite] = dict(zip(get_args(SuiteName), Suite, strict=True))
SUITE_NAMES: dict[int, SuiteName] = {suite.value: name for name, suite in SUITES.items()}

LEVELS = {
    Codec.NONE: range(1),
    Codec.ZSTD: range(1, 23),
    Codec.LZ4: range(13),
    Codec.BROTLI: range(12),
    Codec.GZIP: range(1, 10),
}
DEFAULT_LEVELS = {Codec.NONE: 0, Codec.ZSTD: 3, Codec.LZ4: 0, Codec.BROTLI: 5, Codec.GZIP: 6}
SECONDS_PER_MIB: dict[Codec, dict[int, float]] = {
    Codec.NONE: {22: 0.0},
    Codec.ZSTD: {3: 0.005, 6: 0.015, 9: 0.02, 12: 0.05, 15: 0.4, 18: 0.55, 22: 0.65},
    Codec.LZ4: {2: 0.005, 3: 0.02, 6: 0.06, 10: 0.3, 11: 0.6, 12: 4.0},
    Codec.BROTLI: {3: 0.01, 4: 0.03, 6: 0.05, 7: 0.06, 8: 0.15, 9: 0.25, 10: 1.0, 11: 2.0},
    Codec.GZIP: {3: 0.02, 5: 0.03, 6: 0.07, 7: 0.12, 8: 0.7, 9: 2.4},
}
"""CPU seconds per MiB, for every level up to the key. Measured on one core with 4 MiB: the slowest of prose,
source code, machine code, base64, repetitions, and noise of two letters, which costs most."""


class ChunkPlace(Protocol):
    """The place of a chunk in its session. An entry and a `recorded` event both have these numbers."""

    @property
    def index(self) -> int: ...
    @property
    def track(self) -> int: ...
    @property
    def part(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def plain(self) -> int: ...


@dataclass(frozen=True, slots=True)
class ChunkHeader:
    suite: Suite
    codec: Codec
    track: int
    part: int
    uid: bytes
    index: int
    offset: int
    plain: int
    payload: int
    dek_id: bytes
    nonce: bytes = bytes(24)
    commitment: bytes = bytes(32)

    @property
    def sealed(self) -> int:
        """Length of the whole file, bytes."""
        return HEADER_BYTES + self.payload + TAG_BYTES

    def names(self, uid: bytes, chunk: ChunkPlace) -> bool:
        """Whether this header names that chunk of session `uid`: index, track, part, offset, plain length."""
        mine = (self.uid, self.index, self.track, self.part, self.offset, self.plain)
        return mine == (uid, chunk.index, chunk.track, chunk.part, chunk.offset, chunk.plain)

    def pack(self) -> bytes:
        return HEADER.pack(MAGIC, VERSION, self.suite, self.codec, 0, HEADER_BYTES, *_FROM_TRACK(self))

    @classmethod
    def parse(cls, raw: Buffer) -> "ChunkHeader":
        """Return the header, checked as far as it can be checked alone. raw: exactly 128 bytes."""
        if len(raw) != HEADER_BYTES:
            _refuse(f"a header has {HEADER_BYTES} bytes, this one {len(raw)}")
        magic, version, suite, codec, flags, size, track, part, *rest = HEADER.unpack(raw)
        _uid, index, offset, plain, payload, _dek_id, nonce, _commitment = rest
        if (magic, version, flags, size) != (MAGIC, VERSION, 0, HEADER_BYTES):
            _refuse("magic, version, flags or header length is wrong")
        if suite not in tuple(Suite) or codec not in tuple(Codec):
            _refuse(f"suite {suite} or codec {codec} is unknown")
        if track not in (0, 1, INDEX_TRACK) or (track == INDEX_TRACK and part):
            _refuse(f"track {track}, part {part} is unknown")
        if index >= INT_LIMIT or offset >= INT_LIMIT or plain > MAX_PLAIN:
            _refuse("index, offset or plain length is out of bounds")
        if payload > plain or (codec == Codec.NONE and payload != plain):
            _refuse(f"payload of {payload} bytes does not fit {plain} plain bytes under codec {codec}")
        if suite == Suite.AES_256_GCM and any(nonce[12:]):
            _refuse("a nonce of suite 2 has 12 bytes and then zeros")
        return cls(Suite(suite), Codec(codec), track, part, *rest)


_FROM_TRACK = attrgetter(*(field.name for field in fields(ChunkHeader)[2:]))
"""The fields of a header from `track` on: they have one order in the class and in the bytes."""


def codec_seconds(codec: Codec, level: int, plain_bytes: int) -> float:
    """Return the CPU seconds that compression of `plain_bytes` may take. Raises ValueError: no such level."""
    for up_to, seconds in SECONDS_PER_MIB[codec].items():
        if level <= up_to:
            return seconds * plain_bytes / MIB
    raise ValueError(f"{codec.name} has no level {level}")


def _refuse(message: str) -> NoReturn:
    raise EvidenceFalse(f"chunk header refused: {message}", code="chunk.header")
