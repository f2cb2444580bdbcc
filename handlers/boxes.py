"""Owns where a recording may be cut: the units of a fragmented MP4, found while its bytes arrive.

1. All units of `feed` and `finish`, joined, are the input, byte for byte.
2. A unit is the init segment (ftyp ... moov), or one movie fragment (moof, its mdat and what precedes it).
   It is a key frame when the first video sample of the fragment is a sync sample.
3. Units that one `feed` completes are given out as one, up to `join_bytes`; a key frame begins one always.
   So what comes live is cut at every box, and what is read faster than it was made costs fewer fragments.
4. Anything else (another container, a damaged box, a unit over MAX_UNIT_BYTES) is opaque from there on:
   handed out as it comes, never a key frame. Being opaque costs good cut places, never bytes.
5. It must not know what a chunk, a fragment or a host is.
Source: ISO/IEC 14496-12 §4.2 (boxes), §8.8 (movie fragments).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from schemas.digest import Buffer

MAX_UNIT_BYTES = 16 << 20
"""A longer unit would hold back more than one chunk; a second of 8K screen stays far below."""

BOX_HEADER = struct.Struct(">I4s")
LARGE_SIZE = struct.Struct(">Q")
U32 = struct.Struct(">I")

INIT_TYPES = frozenset({b"ftyp", b"moov", b"free", b"skip", b"uuid"})
BEFORE_MOOF = frozenset({b"styp", b"sidx", b"prft", b"emsg", b"free", b"skip", b"uuid"})
AFTER_LAST = frozenset({b"mfra"})

NON_SYNC = 0x0001_0000
"""sample_is_non_sync_sample (§8.8.3.1)."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Bytes that belong together, and whether a new chunk would best begin with them."""

    data: Buffer
    key_frame: bool = False


class BoxSplitter:
    """Cuts one recording into units as its bytes arrive. `opaque` says that no more cuts will be found."""

    def __init__(self, join_bytes: int = 0) -> None:
        self.opaque = False
        self._join_bytes = join_bytes
        self._kept = bytearray()
        """What was fed and not given out; the positions below are in it."""
        self._given = self._whole = self._scanned = 0
        """Ends of what was given out, of whole units, of whole boxes."""
        self._whole_key_frame = False
        """Of the first unit between _given and _whole."""
        self._seen_moov = False
        self._has_moof = False
        self._key_frame = False
        """Of the unit being gathered, between _whole and _scanned."""
        self._video: dict[int, int] = {}
        """Video track id → default sample flags."""

    def feed(self, data: bytes) -> list[Unit]:
        """Return the units that `data` completes; what is not complete stays inside."""
        if self.opaque:
            return [Unit(data)] if data else []
        self._kept += data
        units: list[Unit] = []
        while not self.opaque and (header := self._next_box()) is not None:
            kind, size = header
            if not self._belongs(kind) or self._scanned - self._whole + size > MAX_UNIT_BYTES:
                self.opaque = True
            elif not self._holds(size):
                break
            else:
                units += self._take(kind, size)
        units += self._cut()
        if given := self._given:  # units are views of these bytes: those stay as long as the units
            self._kept = self._kept[given:]
            self._given, self._whole, self._scanned = 0, 0, self._scanned - given
        if self.opaque:
            units += self.finish()
        return units

    def finish(self) -> list[Unit]:
        """Return what is left: the input ended here."""
        rest, self._kept, self._scanned = self._kept, bytearray(), 0
        return [Unit(rest)] if rest else []

    def _holds(self, size: int) -> bool:
        """Whether so many bytes after _scanned are here."""
        return self._scanned + size <= len(self._kept)

    def _next_box(self) -> tuple[bytes, int] | None:
        """Type and whole size of the box at _scanned; None while its header is incomplete."""
        if not self._holds(BOX_HEADER.size):
            return None
        size, kind = BOX_HEADER.unpack_from(self._kept, self._scanned)
        smallest = BOX_HEADER.size
        if size == 1:
            smallest += LARGE_SIZE.size
            if not self._holds(smallest):
                return None
            size = LARGE_SIZE.unpack_from(self._kept, self._scanned + BOX_HEADER.size)[0]
        # size 0 means "to the end of the file": its end cannot be seen, so it is as good as opaque
        return kind, size if size >= smallest else MAX_UNIT_BYTES + 1

    def _belongs(self, kind: bytes) -> bool:
        """Whether a box of this type may stand here in a fragmented MP4."""
        if not self._seen_moov:
            return kind == b"ftyp" if self._scanned == 0 else kind in INIT_TYPES
        if self._has_moof:
            return kind == b"mdat"
        return kind == b"moof" or kind in BEFORE_MOOF or kind in AFTER_LAST

    def _take(self, kind: bytes, size: int) -> list[Unit]:
        """Add the whole box at _scanned to the unit; return the units before it that it is not joined to."""
        begin, self._scanned = self._scanned, self._scanned + size
        try:
            if kind == b"moov":
                self._seen_moov = True
                self._video = video_tracks(bytes(self._kept[begin : self._scanned]))
            elif kind == b"moof":
                self._has_moof = True
                moof = bytes(self._kept[begin : self._scanned])
                self._key_frame = begins_with_key_frame(moof, self._video)
        except (struct.error, ValueError, LookupError):
            self.opaque = True
            return []
        if kind not in (b"moov", b"mdat") and kind not in AFTER_LAST:
            return []
        key_frame, self._has_moof, self._key_frame = self._key_frame, False, False
        before = self._cut() if key_frame or self._scanned - self._given > self._join_bytes else []
        if self._whole == self._given:
            self._whole_key_frame = key_frame
        self._whole = self._scanned
        return before

    def _cut(self) -> list[Unit]:
        """Give out the whole units at hand."""
        begin, self._given = self._given, self._whole
        if self._whole == begin:
            return []
        return [Unit(memoryview(self._kept)[begin : self._whole], self._whole_key_frame)]


def video_tracks(moov: bytes) -> dict[int, int]:
    """Video track id → default sample flags of its trex (NON_SYNC where it has none)."""
    ids, defaults = [], {}
    for kind, body in children(moov):
        if kind == b"trak":
            inner = dict(children_of(body))
            handler = dict(children_of(inner.get(b"mdia", b""))).get(b"hdlr", b"")
            if handler[8:12] == b"vide":
                header = inner[b"tkhd"]
                ids.append(U32.unpack_from(header, 20 if header[0] == 1 else 12)[0])
        elif kind == b"mvex":
            for inner_kind, trex in children_of(body):
                if inner_kind == b"trex":
                    defaults[U32.unpack_from(trex, 4)[0]] = U32.unpack_from(trex, 20)[0]
    return {track: defaults.get(track, NON_SYNC) for track in ids}


def begins_with_key_frame(moof: bytes, video: dict[int, int]) -> bool:
    """Whether the first sample of the first video track run in this fragment is a sync sample."""
    for kind, traf in children(moof):
        if kind != b"traf":
            continue
        boxes = dict(reversed(list(children_of(traf))))  # of several runs the first one counts
        header, run = boxes.get(b"tfhd"), boxes.get(b"trun")
        if header is None or run is None:
            continue
        track = U32.unpack_from(header, 4)[0]
        if track in video:
            return not first_sample_flags(header, run, video[track]) & NON_SYNC
    return False


def first_sample_flags(tfhd: bytes, trun: bytes, default: int) -> int:
    """Flags of a run's first sample: its own, the fragment's default, or the track's (§8.8.7, §8.8.8)."""
    flags = U32.unpack_from(trun)[0] & 0xFFFFFF
    at = 8 + 4 * bool(flags & 0x1)
    if flags & 0x4:
        return int(U32.unpack_from(trun, at)[0])
    if flags & 0x400:
        return int(U32.unpack_from(trun, at + 4 * bool(flags & 0x100) + 4 * bool(flags & 0x200))[0])
    flags = U32.unpack_from(tfhd)[0] & 0xFFFFFF
    if flags & 0x20:
        at = 8 + 8 * bool(flags & 0x1) + 4 * sum(bool(flags & bit) for bit in (0x2, 0x8, 0x10))
        return int(U32.unpack_from(tfhd, at)[0])
    return default


def children(box: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Types and bodies of the boxes inside a whole container box."""
    large = U32.unpack_from(box)[0] == 1
    return children_of(box[BOX_HEADER.size + (LARGE_SIZE.size if large else 0) :])


def children_of(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Types and bodies of the boxes in a container's body. Raises ValueError where sizes lie."""
    at = 0
    while at < len(body):
        size, kind = BOX_HEADER.unpack_from(body, at)
        start = at + BOX_HEADER.size
        if size == 1:
            size = LARGE_SIZE.unpack_from(body, start)[0]
            start += LARGE_SIZE.size
        if size < start - at or at + size > len(body):
            raise ValueError(f"box {kind!r} does not fit its parent")
        yield kind, body[start : at + size]
        at += size
