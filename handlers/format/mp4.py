"""Cuts a fragmented MP4 into units while its bytes arrive: the places where a recording may be cut.

1. The joined units of `feed`, `flush` and `finish` are the input, byte for byte.
2. A unit is the init segment (ftyp ... moov), or one movie fragment (moof, its mdat, the boxes before it).
   It is a key frame if the first video sample of the fragment is a sync sample.
3. `feed` joins the units that it completes, up to `join_bytes`; a key frame always begins a new one. So a
   live source is cut at every box, and a source faster than real time costs fewer fragments.
4. An incomplete unit never waits: `flush` returns its bytes so far, and so does `feed` from `join_bytes` on.
   The rest follows without a flag: only the true begin of a unit has one.
5. An init segment after a movie fragment begins another film; its unit has the flag `begins_film`.
6. After any other input (another container, a damaged box, a header box over MAX_BOX_BYTES) the rest is
   opaque: pieces of `join_bytes`, never a key frame. Opaque input costs cut places, never bytes.
7. This module does not know chunks, fragments, hosts or clocks.

Source: ISO/IEC 14496-12 §4.2 (boxes), §8.8 (movie fragments).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from schemas.format.digest import Buffer

MAX_BOX_BYTES = 16 << 20
"""Greatest box except mdat: it stays in memory until it is complete. A moof of 8K screen is smaller."""

BOX_HEADER = struct.Struct(">I4s")
LARGE_SIZE = struct.Struct(">Q")
U32 = struct.Struct(">I")

INIT_TYPES = frozenset({b"ftyp", b"moov", b"free", b"skip", b"uuid"})
BEGINS_FILM = frozenset({b"ftyp", b"moov"})
BEFORE_MOOF = frozenset({b"styp", b"sidx", b"prft", b"emsg", b"free", b"skip", b"uuid"})
AFTER_LAST = frozenset({b"mfra"})
ENDS_UNIT = frozenset({b"moov", b"mdat"}) | AFTER_LAST

NON_SYNC = 0x0001_0000
"""sample_is_non_sync_sample (§8.8.3.1)."""
NOWHERE = -1


@dataclass(frozen=True, slots=True)
class Unit:
    """Bytes that belong together. key_frame: a new chunk should begin here."""

    data: Buffer
    key_frame: bool = False
    begins_film: bool = False
    """An init segment begins here, after another film."""


class BoxSplitter:
    """Cuts one recording into units as its bytes arrive. opaque: no more cut places are found."""

    def __init__(self, join_bytes: int = 0) -> None:
        self.opaque = False
        self._join_bytes = join_bytes
        self._kept = bytearray()
        """Bytes that are not returned yet, and before them bytes that are not parsed yet."""
        self._base = 0
        """Offset of the first kept byte. All offsets count from the start of the input."""
        self._given = self._whole = self._scanned = 0
        """End offsets of the returned bytes, of complete units, of complete boxes."""
        self._box: tuple[bytes, int] | None = None
        """Type and size of the box at _scanned; None: its header is not accepted yet."""
        self._key_frame_at = self._film_at = NOWHERE
        """Offsets of the last key frame, and of the last film after the first."""
        self._seen_moov = self._has_moof = False
        self._video: dict[int, int] = {}
        """Video track id → default sample flags."""

    @property
    def holds(self) -> bool:
        """Whether some fed bytes are not returned yet."""
        return self._given < self._end

    def feed(self, data: bytes) -> list[Unit]:
        """Return the units that `data` completes; incomplete bytes stay inside, up to `join_bytes`."""
        if self.opaque:
            return self._pass_on(data)
        self._kept += data
        units: list[Unit] = []
        while not self.opaque:
            if self._box is None and not self._begins_box(units):
                break
            if self._box is None or self._scanned + self._box[1] > self._end:
                break
            self._end_box(*self._box, units)
        self._give(self._whole, units)
        if self.opaque:
            self._give(self._end, units)
        elif self._join_bytes and self._box is not None and self._box[0] == b"mdat":
            while self._given + self._join_bytes <= self._end:
                self._give(self._given + self._join_bytes, units)
        self._trim(units)
        return units

    def flush(self) -> list[Unit]:
        """Return the bytes so far of an incomplete unit; its rest may still come.

        Half a box header stays inside if it may begin another film.
        """
        unknown = self._box is None and self._seen_moov and not self._has_moof and not self.opaque
        return self._rest(self._scanned if unknown else self._end)

    def finish(self) -> list[Unit]:
        """Return the remaining bytes: the input has ended."""
        return self._rest(self._end)

    def _rest(self, end: int) -> list[Unit]:
        units: list[Unit] = []
        self._give(end, units)
        self._trim(units)
        return units

    @property
    def _end(self) -> int:
        return self._base + len(self._kept)

    def _begins_box(self, units: list[Unit]) -> bool:
        """Accept the box at _scanned, or turn opaque. False: its header is incomplete."""
        at = self._scanned - self._base
        if len(self._kept) < at + BOX_HEADER.size:
            return False
        size, kind = BOX_HEADER.unpack_from(self._kept, at)
        smallest = BOX_HEADER.size
        if size == 1:
            smallest += LARGE_SIZE.size
            if len(self._kept) < at + smallest:
                return False
            size = LARGE_SIZE.unpack_from(self._kept, at + BOX_HEADER.size)[0]
        # size 0 means "to the end of the file": the end is unknown
        if size < smallest or (kind != b"mdat" and size > MAX_BOX_BYTES):
            self.opaque = True
            return False
        if self._seen_moov and not self._has_moof and kind in BEGINS_FILM:
            self._give(self._scanned, units)
            self._whole = self._film_at = self._scanned
            self._seen_moov = False
        if self._belongs(kind):
            self._box = kind, size
        else:
            self.opaque = True
        return not self.opaque

    def _belongs(self, kind: bytes) -> bool:
        """Whether a box of this type may stand here in a fragmented MP4."""
        if not self._seen_moov:
            return kind == b"ftyp" if self._scanned == 0 else kind in INIT_TYPES
        if self._has_moof:
            return kind == b"mdat"
        return kind == b"moof" or kind in BEFORE_MOOF or kind in AFTER_LAST

    def _end_box(self, kind: bytes, size: int, units: list[Unit]) -> None:
        """Add the complete box at _scanned to its unit; return the units that are not joined to it."""
        begin, self._scanned, self._box = self._scanned, self._scanned + size, None
        try:
            if kind == b"moov":
                self._seen_moov = True
                self._video = video_tracks(self._bytes(begin))
            elif kind == b"moof":
                self._has_moof = True
                if begins_with_key_frame(self._bytes(begin), self._video):
                    self._give(self._whole, units)
                    self._key_frame_at = self._whole
        except (struct.error, ValueError, LookupError):
            self.opaque = True
        if kind in ENDS_UNIT and not self.opaque:
            if self._scanned - self._given > self._join_bytes:
                self._give(self._whole, units)
            self._whole, self._has_moof = self._scanned, False

    def _bytes(self, begin: int) -> bytes:
        return bytes(memoryview(self._kept)[begin - self._base : self._scanned - self._base])

    def _give(self, end: int, units: list[Unit]) -> None:
        """Append the bytes up to `end` that are not returned yet."""
        begin = self._given
        if end > begin:
            self._given = end
            data = memoryview(self._kept)[begin - self._base : end - self._base]
            units.append(Unit(data, begin == self._key_frame_at, begin == self._film_at))

    def _trim(self, given: list[Unit]) -> None:
        """Drop the returned and parsed bytes. Units are views: they keep the bytes alive."""
        if given:
            streams = self.opaque or (self._box is not None and self._box[0] == b"mdat")
            keep = self._given if streams else min(self._given, self._scanned)
            self._kept, self._base = self._kept[keep - self._base :], keep

    def _pass_on(self, data: bytes) -> list[Unit]:
        """Return full pieces of `join_bytes`, joined; the rest stays until it is flushed."""
        size = len(self._kept) + len(data)
        rest = size % self._join_bytes if self._join_bytes else 0
        if rest == size:
            self._kept += data
            return []
        joined = memoryview(self._kept + data if self._kept else data)
        self._kept, self._given = bytearray(joined[size - rest :]), self._given + size - rest
        self._base = self._given
        return [Unit(joined[: size - rest])]


def video_tracks(moov: bytes) -> dict[int, int]:
    """Return video track id → default sample flags of its trex (NON_SYNC if it has none)."""
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
        boxes = dict(reversed(list(children_of(traf))))  # the first of several runs counts
        header, run = boxes.get(b"tfhd"), boxes.get(b"trun")
        if header is None or run is None:
            continue
        track = U32.unpack_from(header, 4)[0]
        if track in video:
            return not first_sample_flags(header, run, video[track]) & NON_SYNC
    return False


def first_sample_flags(tfhd: bytes, trun: bytes, default: int) -> int:
    """Return the flags of a run's first sample: its own, the fragment's, or the track's (§8.8.7, §8.8.8)."""
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
    """Yield types and bodies of the boxes inside a complete container box."""
    large = U32.unpack_from(box)[0] == 1
    return children_of(box[BOX_HEADER.size + (LARGE_SIZE.size if large else 0) :])


def children_of(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield types and bodies of the boxes in a container's body. Raises ValueError: a size is wrong."""
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
