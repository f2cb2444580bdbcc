"""The entry of a chunk, 158 bytes, and the rows of index chunks (format.md §7, §8).

    entry = index u64 ‖ track u16 ‖ part u32 ‖ offset u64 ‖ plain u32 ‖ sealed u32 ‖ first_us i64 ‖
            last_us i64 ‖ first_seq u64 ‖ last_seq u64 ‖ prev_head 32 ‖ last_head 32 ‖ digest 32
    row   = length u32 (of type and content) ‖ type u8 ‖ content
    1 chunk      entry
    2 fragment   kind u8 ‖ flags u16 ‖ time i64 ‖ plain u32 ‖ H(body) 32 ‖ signature 64 ‖ body unless data
    3 key frame  track u16 ‖ time i64 ‖ chunk u64 ‖ offset within track u64
    4 metadata   JCS

1. Little-endian. An unknown value, or one out of bounds, is EvidenceFalse (index.entry, index.row).
2. `rows` of a `recorded` event are joined rows of type 2, by seq.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, NoReturn

from schemas.errors import EvidenceFalse, Rejected
from schemas.events.chunk import Recorded
from schemas.format.chunk_header import HEADER_BYTES, INDEX_TRACK, MAX_PLAIN, MAX_SEALED, TAG_BYTES
from schemas.format.digest import ZERO, Buffer, h
from schemas.format.fragment import KEY_FRAME, MAX_CLEAR, MAX_DATA_PLAIN, Fragment, Kind
from schemas.format.fragment import TAG_BYTES as FRAGMENT_TAG_BYTES
from schemas.format.fragment import Header as FragmentHeader
from schemas.format.jcs import INT_LIMIT, jcs, strict_loads

ENTRY = struct.Struct("<QHIQIIqqQQ32s32s32s")
ENTRY_BYTES = ENTRY.size
MAX_INDEX_PLAIN = 8 << 20
"""Plain bytes of one index chunk."""
MAX_METADATA = 65_536
"""Bytes of the metadata row's JSON."""
LENGTH_BYTES = 4

CHUNK_ROW, FRAGMENT_ROW, KEY_FRAME_ROW, METADATA_ROW = 1, 2, 3, 4
_FRAGMENT = struct.Struct("<BHqI32s64s")
_KEY_FRAME = struct.Struct("<HqQQ")


@dataclass(frozen=True, slots=True)
class Entry:
    index: int
    track: int
    part: int
    offset: int
    plain: int
    sealed: int
    """Bytes of the whole file; 0: lost."""
    first_us: int
    last_us: int
    first_seq: int
    last_seq: int
    prev_head: bytes
    last_head: bytes
    digest: bytes
    """H(whole file); zero: lost."""

    @classmethod
    def of(cls, recorded: Recorded, sealed: int = 0, digest: bytes = ZERO) -> "Entry":
        """Return the entry of a data chunk. sealed, digest: length and H of its file; without, it is lost."""
        return cls(**dict(zip(SPAN_NAMES, _SPAN(recorded), strict=True)), sealed=sealed, digest=digest)

    @property
    def lost(self) -> bool:
        return self.sealed == 0

    @property
    def span(self) -> tuple[int | bytes, ...]:
        """Every field but those of the file."""
        return tuple(_SPAN(self))

    def pack(self) -> bytes:
        return ENTRY.pack(*_VALUES(self))

    @classmethod
    def parse(cls, raw: Buffer) -> "Entry":
        if len(raw) != ENTRY_BYTES:
            _refuse("entry", f"an entry has {ENTRY_BYTES} bytes, this one {len(raw)}")
        entry = cls(*ENTRY.unpack(raw))
        entry.check()
        return entry

    def check(self) -> None:
        """Raise EvidenceFalse (index.entry) unless the numbers agree with each other."""
        numbers = (self.index, self.offset, self.first_us, self.last_us, self.first_seq, self.last_seq)
        if any(abs(n) >= INT_LIMIT for n in numbers) or self.plain > MAX_PLAIN:
            _refuse("entry", "a number is out of bounds")
        if self.lost != (self.digest == ZERO):
            _refuse("entry", "sealed length and digest disagree about a lost chunk")
        least = HEADER_BYTES + TAG_BYTES
        if not self.lost and not least <= self.sealed <= min(MAX_SEALED, least + self.plain):
            _refuse("entry", f"sealed length {self.sealed} does not fit {self.plain} plain bytes")
        if self.track == INDEX_TRACK:
            spans = (self.part, self.first_us, self.last_us, self.first_seq, self.last_seq)
            if any(spans) or self.prev_head != ZERO or self.last_head != ZERO or self.lost:
                _refuse("entry", "an index chunk names no part, time, seq or head, and is never lost")
        elif self.track > 1 or self.first_seq > self.last_seq:
            _refuse("entry", f"track {self.track}, seq {self.first_seq} to {self.last_seq}")


ENTRY_NAMES = tuple(field.name for field in fields(Entry))
SPAN_NAMES = tuple(name for name in ENTRY_NAMES if name not in ("sealed", "digest"))
_VALUES, _SPAN = attrgetter(*ENTRY_NAMES), attrgetter(*SPAN_NAMES)


@dataclass(frozen=True, slots=True)
class FragmentRow:
    kind: Kind
    flags: int
    time_us: int
    plain: int
    body_digest: bytes
    signature: bytes
    body: bytes
    """Empty for data."""

    @classmethod
    def of(cls, fragment: Fragment) -> "FragmentRow":
        header = fragment.header
        return cls(
            header.kind,
            header.flags,
            header.time_us,
            fragment.plain,
            fragment.body_digest,
            fragment.signature,
            fragment.clear,
        )

    def header(self, uid: bytes, track: int, part: int, seq: int, prev_head: bytes) -> FragmentHeader:
        """Return the fragment's header again, from the row and its place in the chain."""
        length = self.plain + FRAGMENT_TAG_BYTES if self.kind is Kind.DATA else len(self.body)
        return FragmentHeader(self.kind, self.flags, track, part, uid, seq, self.time_us, length, prev_head)

    def pack(self) -> bytes:
        fixed = _FRAGMENT.pack(
            self.kind, self.flags, self.time_us, self.plain, self.body_digest, self.signature
        )
        return _row(FRAGMENT_ROW, fixed + self.body)

    @classmethod
    def parse(cls, content: bytes) -> "FragmentRow":
        if not _FRAGMENT.size <= len(content) <= _FRAGMENT.size + MAX_CLEAR:
            _refuse("row", f"fragment row of {len(content)} bytes")
        kind, flags, time_us, plain, digest, signature = _FRAGMENT.unpack_from(content)
        body = content[_FRAGMENT.size :]
        if kind not in tuple(Kind) or flags & ~KEY_FRAME or (flags and kind != Kind.DATA):
            _refuse("row", f"fragment row of kind {kind}, flags {flags:#x}")
        if (body and kind == Kind.DATA) or (plain and kind != Kind.DATA) or plain > MAX_DATA_PLAIN:
            _refuse("row", f"fragment row of kind {kind} has {plain} plain bytes and a body of {len(body)}")
        if kind != Kind.DATA and h(body) != digest:
            _refuse("row", "fragment row's body does not match its digest")
        if abs(time_us) >= INT_LIMIT:
            _refuse("row", "fragment row's time is out of bounds")
        return cls(Kind(kind), flags, time_us, plain, digest, signature, body)


@dataclass(frozen=True, slots=True)
class KeyFrameRow:
    track: int
    time_us: int
    chunk: int
    offset: int
    """Byte offset in the track."""

    def pack(self) -> bytes:
        return _row(KEY_FRAME_ROW, _KEY_FRAME.pack(self.track, self.time_us, self.chunk, self.offset))

    @classmethod
    def parse(cls, content: bytes) -> "KeyFrameRow":
        if len(content) != _KEY_FRAME.size:
            _refuse("row", f"key frame row of {len(content)} bytes")
        row = cls(*_KEY_FRAME.unpack(content))
        if row.track > 1 or max(row.chunk, row.offset, abs(row.time_us)) >= INT_LIMIT:
            _refuse("row", "key frame row is out of bounds")
        return row


@dataclass(frozen=True, slots=True)
class MetadataRow:
    members: dict[str, Any]

    def pack(self) -> bytes:
        return _row(METADATA_ROW, jcs(self.members))

    @classmethod
    def parse(cls, content: bytes) -> "MetadataRow":
        if len(content) > MAX_METADATA:
            _refuse("row", f"metadata row of {len(content)} bytes, allowed {MAX_METADATA}")
        try:
            members = strict_loads(content)
        except Rejected as error:
            _refuse("row", f"metadata row: {error.message}")
        if not isinstance(members, dict):
            _refuse("row", "metadata row is no object")
        return cls(members)


Row = Entry | FragmentRow | KeyFrameRow | MetadataRow


def pack_row(row: Row) -> bytes:
    """Return length, type and content of one row, as bytes."""
    return _row(CHUNK_ROW, row.pack()) if isinstance(row, Entry) else row.pack()


def rows(raw: Buffer) -> Iterator[Row]:
    """Yield every row of an index chunk or a `recorded` event. Raises EvidenceFalse (index.*)."""
    view = memoryview(raw)
    at = 0
    while at < len(view):
        length = int.from_bytes(view[at : at + LENGTH_BYTES], "little")
        at += LENGTH_BYTES
        if length < 1 or at + length > len(view):
            _refuse("row", f"row of {length} bytes at {at} does not fit {len(view)}")
        content = bytes(view[at + 1 : at + length])
        match view[at]:
            case 1:
                yield Entry.parse(content)
            case 2:
                yield FragmentRow.parse(content)
            case 3:
                yield KeyFrameRow.parse(content)
            case 4:
                yield MetadataRow.parse(content)
            case kind:
                _refuse("row", f"row of type {kind} is unknown")
        at += length


def fragment_rows(raw: Buffer) -> list[FragmentRow]:
    """Return the rows of a `recorded` event. Raises EvidenceFalse (index.*)."""
    found = list(rows(raw))
    if not all(isinstance(row, FragmentRow) for row in found):
        _refuse("row", "a row is not a fragment row")
    return [row for row in found if isinstance(row, FragmentRow)]


def cut(packed: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the plain bytes of each index chunk: rows in order, 1 byte to MAX_INDEX_PLAIN each."""
    held: list[bytes] = []
    size = 0
    for row in packed:
        if held and size + len(row) > MAX_INDEX_PLAIN:
            yield b"".join(held)
            held, size = [], 0
        held.append(row)
        size += len(row)
    if held:
        yield b"".join(held)


def _row(kind: int, content: bytes) -> bytes:
    return (1 + len(content)).to_bytes(LENGTH_BYTES, "little") + bytes((kind,)) + content


def _refuse(what: str, message: str) -> NoReturn:
    raise EvidenceFalse(f"index refused: {message}", code=f"index.{what}") from None
