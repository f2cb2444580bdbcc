"""The bytes of a fragment: header 96 ‖ body ‖ signature 64 (format.md §4); uid and genesis (§2).

    off size field                      off size field
      0    4 magic LFRG                  16   16 uid
      4    1 version 1                   32    8 seq, contiguous per track over all parts
      5    1 kind                        40    8 host time, µs
      6    2 flags: 1 = key frame        48    4 body length
      8    2 track: 0 main, 1 events     52   12 reserved
     10    2 reserved                    64   32 previous head (genesis at seq 0)
     12    4 part

1. Little-endian. Reserved bytes are zero; unknown flags and wrong lengths are refused.
2. `parse` reads one fragment alone: it checks neither signature nor chain, and copies no body.
3. Every refusal is `Rejected` with a code `fragment.<why>`.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import NoReturn

from schemas.errors import Rejected
from schemas.format.digest import ZERO, Buffer, d, h
from schemas.format.fragment_bodies import (
    EndBody,
    FinalBody,
    GapBody,
    PartBody,
    PartSettings,
    ReasonBody,
    TrackTail,
)
from schemas.format.jcs import INT_LIMIT

MAGIC = b"LFRG"
VERSION = 1
HEADER = struct.Struct("<4sBBHHHI16sQqI12s32s")
HEADER_BYTES = HEADER.size
SIGNATURE_BYTES = 64
TAG_BYTES = 16
MAX_BYTES = 960 * 1024
MAX_BODY = MAX_BYTES - HEADER_BYTES - SIGNATURE_BYTES
MAX_DATA_PLAIN = MAX_BODY - TAG_BYTES
MAX_CLEAR = 4 * 1024
"""Greatest body of a fragment that holds no data."""
KEY_FRAME = 1
"""Flag of a data fragment that begins with a video key frame."""
WINDOW = 64
"""Greatest number of unacknowledged fragments of a sender on one track. A fragment so far ahead shows that
the missing ones before it are lost."""
MAIN, EVENTS = 0, 1
"""The tracks that exist."""
SIGNED = b"lucid v1 fragment\0"
"""A host signs this ‖ head."""
END_SIGNED = b"lucid v1 end\0"
"""The installation signs this ‖ head of a kind 8 fragment."""


class Kind(IntEnum):
    PART = 1
    DATA = 2
    TICK = 3
    GAP = 4
    PAUSE = 5
    RESUME = 6
    FINAL = 7
    END = 8


@dataclass(frozen=True, slots=True)
class Header:
    kind: Kind
    flags: int
    track: int
    part: int
    uid: bytes
    seq: int
    time_us: int
    body_length: int
    prev_head: bytes

    def pack(self) -> bytes:
        return HEADER.pack(
            MAGIC,
            VERSION,
            self.kind,
            self.flags,
            self.track,
            0,
            self.part,
            self.uid,
            self.seq,
            self.time_us,
            self.body_length,
            bytes(12),
            self.prev_head,
        )

    @classmethod
    def parse(cls, raw: Buffer) -> "Header":
        """Return the header, checked as far as it can be checked alone. Raises Rejected (fragment.*)."""
        if len(raw) != HEADER_BYTES:
            _refuse("header", f"a header has {HEADER_BYTES} bytes, this one {len(raw)}")
        magic, version, kind, flags, track, r1, part, uid, seq, time_us, length, r2, prev = HEADER.unpack(raw)
        if magic != MAGIC or version != VERSION:
            _refuse("magic", f"begins with {magic.hex()} {version}, wanted {MAGIC.hex()} {VERSION}")
        if not Kind.PART <= kind <= Kind.END:
            _refuse("kind", f"kind {kind} is unknown")
        if flags & ~KEY_FRAME or (flags and kind != Kind.DATA):
            _refuse("flags", f"flags {flags:#x} are not allowed for kind {kind}")
        if r1 or any(r2):
            _refuse("reserved", "reserved bytes are not zero")
        if track > EVENTS:
            _refuse("track", f"track {track} is unknown")
        if seq >= INT_LIMIT - 1 or abs(time_us) >= INT_LIMIT:  # JSON must hold the next seq too
            _refuse("range", "seq is more than 2^53 - 2, or time 2^53 or more")
        header = cls(Kind(kind), flags, track, part, uid, seq, time_us, length, prev)
        header._check_kind()
        return header

    def _check_kind(self) -> None:
        match self.kind:
            case Kind.END:
                if self.track or self.part or self.seq or self.prev_head != ZERO:
                    _refuse("end", "track, part, seq and previous head of an end must be zero")
            case Kind.PART:
                if (self.part == 0) != (self.seq == 0) or self.part > self.seq:
                    _refuse("part", f"part {self.part} cannot begin at seq {self.seq}")
            case _ if self.seq == 0 or self.part >= self.seq:
                _refuse("first", "the first fragment of a track must be a part fragment")
        if self.kind is Kind.FINAL and self.track != MAIN:
            _refuse("track", "a final fragment must be on track 0")
        least, most = _BODY_BYTES.get(self.kind, (2, MAX_CLEAR))
        if not least <= self.body_length <= most:
            _refuse("length", f"body of {self.body_length} bytes, allowed {least} to {most}")


_BODY_BYTES = {
    Kind.PART: (PartBody.LEAST_BYTES, MAX_CLEAR),
    Kind.DATA: (TAG_BYTES, MAX_BODY),
    Kind.TICK: (0, 0),
}
"""Least and greatest body by kind, bytes; the other kinds hold a JSON object."""


@dataclass(frozen=True, slots=True)
class Fragment:
    header: Header
    raw_header: bytes
    body: memoryview
    signature: bytes
    body_digest: bytes
    head: bytes

    @property
    def plain(self) -> int:
        """Number of plain bytes; 0 unless the kind is DATA."""
        return len(self.body) - TAG_BYTES if self.header.kind is Kind.DATA else 0

    @property
    def clear(self) -> bytes:
        """The body as rows hold it: empty for DATA."""
        return b"" if self.header.kind is Kind.DATA else bytes(self.body)

    @property
    def whole(self) -> bytes:
        """A copy of the whole fragment."""
        return b"".join((self.raw_header, self.body, self.signature))


def parse(whole: Buffer) -> Fragment:
    """Return the fragment in `whole`, with H(body) and head, unverified. Its body is a view of `whole`.

    Raises Rejected: fragment.size, magic, kind, flags, reserved, track, range, end, part, first, length.
    """
    if not HEADER_BYTES + SIGNATURE_BYTES <= len(whole) <= MAX_BYTES:
        _refuse("size", f"{len(whole)} bytes, allowed {HEADER_BYTES + SIGNATURE_BYTES} to {MAX_BYTES}")
    view = memoryview(whole)
    raw_header = bytes(view[:HEADER_BYTES])
    header = Header.parse(raw_header)
    body = view[HEADER_BYTES:-SIGNATURE_BYTES]
    if len(body) != header.body_length:
        _refuse("length", f"header says {header.body_length} bytes of body, there are {len(body)}")
    digest = h(body)
    return Fragment(
        header, raw_header, body, bytes(view[-SIGNATURE_BYTES:]), digest, head(raw_header, digest)
    )


def head(raw_header: bytes, body_digest: bytes) -> bytes:
    """Return the head, 32 bytes. The signature covers it, and the next fragment names it."""
    return d("lucid v1 head", raw_header + body_digest)


def session_uid(host_key: bytes, counter: int) -> bytes:
    """Return the 16 bytes that name a session's blobs and keys. host_key: 32 bytes, raw public key."""
    return d("lucid v1 uid", host_key + counter.to_bytes(8, "little"))[:16]


def genesis(
    uid: bytes, track: int, host_key: bytes, counter: int, prev_genesis: bytes, intake_public: bytes
) -> bytes:
    """Return the previous head of a track's first fragment, 32 bytes. intake_public: 1216 bytes.

    prev_genesis: genesis of track 0 in the host's previous session; ZERO for the first session.
    """
    numbers = track.to_bytes(2, "little"), counter.to_bytes(8, "little")
    return d("lucid v1 genesis", uid + numbers[0] + host_key + numbers[1] + prev_genesis + h(intake_public))


def _refuse(why: str, message: str) -> NoReturn:
    raise Rejected(f"fragment refused: {message}", code=f"fragment.{why}")


__all__ = [
    "END_SIGNED",
    "EVENTS",
    "HEADER_BYTES",
    "KEY_FRAME",
    "MAIN",
    "MAX_BODY",
    "MAX_BYTES",
    "MAX_CLEAR",
    "MAX_DATA_PLAIN",
    "SIGNATURE_BYTES",
    "SIGNED",
    "TAG_BYTES",
    "EndBody",
    "FinalBody",
    "Fragment",
    "GapBody",
    "Header",
    "Kind",
    "PartBody",
    "PartSettings",
    "ReasonBody",
    "TrackTail",
    "genesis",
    "head",
    "parse",
    "session_uid",
]
