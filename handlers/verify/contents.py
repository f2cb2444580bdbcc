"""Checks the contents with the session's keys: index chunks, fragments, and where chunks were cut.

1. Rows have one order: for each chunk its entry and its fragments, then key frames, then one metadata row.
   A row out of that order ends the walk: nothing after it can be placed.
2. Index chunks are cut greedily at 8 MiB and none is empty.
3. One index chunk and one data chunk are in memory at a time; fragments are not kept.
4. The rules of cutting are those of handlers.stages.record.open_chunk, run again. The reader in
   tests/independent has its own text of them.
5. The fragments of a track decide its cuts. The order of fragments of different tracks leaves no trace, so
   the numbering between tracks is not checked.

Source: format.md §5, §8.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

from blake3 import blake3

from handlers.crypto.keys import SessionKeys
from handlers.stages.record.open_chunk import MAX_FRAGMENTS, Track, closes_before
from handlers.stages.record.pieces import FoldedFragment
from handlers.verify.opening import PartKeys, RebuiltFragment, check_bytes, open_listed, rebuild
from handlers.verify.report import Finding
from handlers.verify.silence import Silences
from schemas.errors import Rejected
from schemas.events.session import SessionSettings
from schemas.format import fragment
from schemas.format.fragment import KEY_FRAME, MAIN, GapBody, Kind, ReasonBody
from schemas.format.index import (
    MAX_INDEX_PLAIN,
    Entry,
    FragmentRow,
    KeyFrameRow,
    MetadataRow,
    Row,
    pack_row,
    rows,
)
from schemas.format.manifest import Chunk, Manifest
from schemas.ports.evidence import Evidence

R = TypeVar("R", Entry, FragmentRow, KeyFrameRow, MetadataRow)


class _Stop(Exception):
    """The walk cannot go on; `finding` says why."""

    def __init__(self, code: str, place: str, message: str) -> None:
        super().__init__(message)
        self.finding = Finding(code, place, message)


class KeyFrames:
    """Counts and digests the rows of type 3. Not kept: a hostile index has more than memory holds."""

    def __init__(self) -> None:
        self.count = 0
        self._digest = blake3()

    def add(self, row: KeyFrameRow) -> None:
        self.count += 1
        self._digest.update(row.pack())

    @property
    def digest(self) -> bytes:
        return self._digest.digest()


@dataclass(slots=True)
class Walk:
    """The state of the walk over one seal; `key_frames` counts the rows of type 3 that must follow."""

    evidence: Evidence
    manifest: Manifest
    keys: SessionKeys
    part_keys: PartKeys
    heads: dict[tuple[int, int], bytes]
    """By (track, part), the head of the part fragment that the manifest lists."""
    ending_head: bytes
    silences: Silences
    key_frames: KeyFrames = field(default_factory=KeyFrames)


def check_rows(
    evidence: Evidence, manifest: Manifest, keys: SessionKeys, part_keys: PartKeys, silences: Silences
) -> Iterator[Finding]:
    """Open every chunk and check every fragment in it; `silences` gets the time of each on track 0."""
    walk = Walk(evidence, manifest, keys, part_keys, _part_heads(manifest), _ending_head(manifest), silences)
    cuts = Cuts(manifest)
    read = _Reading(walk)
    try:
        for chunk in manifest.chunks:
            yield from _check_chunk(walk, cuts, chunk, read)
        found = KeyFrames()
        for _ in range(walk.key_frames.count):
            found.add(read.take(KeyFrameRow))
        if found.digest != walk.key_frames.digest:
            raise _Stop("rows.key_frames", "index chunks", "the rows of key frames are not the fragments'")
        read.take(MetadataRow)
        read.finish()
    except _Stop as stop:
        yield stop.finding
    except Rejected as error:
        yield Finding("rows.malformed", "index chunks", error.message)


class _Reading:
    """The rows of all index chunks, one after the other."""

    def __init__(self, walk: Walk) -> None:
        self._walk = walk
        self._rows = self._read()

    def take(self, kind: type[R]) -> R:
        """Return the next row, which must be of this kind."""
        row = next(self._rows, None)
        if not isinstance(row, kind):
            found = "nothing" if row is None else type(row).__name__
            raise _Stop("rows.malformed", "index chunks", f"{kind.__name__} must come next, {found} does")
        return row

    def finish(self) -> None:
        if next(self._rows, None) is not None:
            raise _Stop("rows.malformed", "index chunks", "rows follow the metadata row")

    def _read(self) -> Iterator[Row]:
        walk, before = self._walk, -1
        for listed in walk.manifest.index:
            plain = open_listed(walk.evidence, walk.keys, listed.index, listed.sealed)
            if isinstance(plain, Finding):
                raise _Stop(plain.code, plain.place, plain.message)
            if plain is None:
                raise _Stop("open.chunk", f"chunk {listed.index}", "cannot be opened: it is not there")
            for number, row in enumerate(rows(plain)):
                if number == 0 and 0 <= before <= MAX_INDEX_PLAIN - len(pack_row(row)):
                    raise _Stop("rows.cut", f"chunk {listed.index - 1}", "was cut before it was full")
                yield row
            before = len(plain)


def _check_chunk(walk: Walk, cuts: "Cuts", chunk: Chunk, read: _Reading) -> Iterator[Finding]:
    place = f"chunk {chunk.index}"
    if read.take(Entry) != chunk.entry:
        yield Finding("rows.chunk", place, "its entry in the index is not the manifest's")
    count = chunk.last_seq - chunk.first_seq + 1
    if count > MAX_FRAGMENTS:  # a finding already (chunk.entry); as many rows may take all memory
        raise _Stop("rows.chunk", place, f"no chunk has {count} fragments")
    rebuilt, found = rebuild(walk.manifest, chunk, [read.take(FragmentRow) for _ in range(count)])
    yield from found
    for item in rebuilt:
        yield from _check_clear(walk, item, f"{place} seq {item.header.seq}")
    if chunk.track == MAIN:
        for before, item in pairwise(rebuilt):
            walk.silences.look(before.header.time_us, item.header.time_us, item.header.seq)
    for row in _key_frames(chunk, rebuilt):
        walk.key_frames.add(row)
    yield from cuts.feed(chunk, rebuilt)
    if chunk.entry.lost:
        return
    plain = open_listed(walk.evidence, walk.keys, chunk.index, chunk.sealed)
    part_key = walk.part_keys.get((chunk.track, chunk.part))
    if isinstance(plain, Finding):
        yield plain
    elif plain is not None and part_key is not None:  # else check_files or open_parts found it
        yield from check_bytes(rebuilt, plain, part_key, chunk.index)


def _check_clear(walk: Walk, item: RebuiltFragment, place: str) -> Iterator[Finding]:
    """Check that clear bodies have their form, and that parts and the final are the manifest's.

    A gap of the host's own is a note.
    """
    header = item.header
    try:
        match header.kind:
            case Kind.GAP:
                gap = GapBody.parse(item.row.body)
                lost_s = max(0, gap.to_us - gap.from_us) / 1e6
                span = f" for {lost_s:.1f} s" if lost_s >= 0.1 else ""
                text = f"its host could not record{span}: {gap.reason}"
                yield Finding("host.gap", place, text)
            case Kind.PAUSE | Kind.RESUME:
                ReasonBody.parse(item.row.body)
            case Kind.PART if walk.heads.get((header.track, header.part)) != item.head:
                yield Finding("part.unused", place, "this part fragment is not the one that is listed")
            case Kind.FINAL if walk.ending_head != item.head:
                yield Finding("ending.place", place, "this final is not the ending")
    except Rejected as error:
        yield Finding("rows.malformed", place, error.message)


def _key_frames(chunk: Chunk, rebuilt: list[RebuiltFragment]) -> Iterator[KeyFrameRow]:
    offset = chunk.offset
    for item in rebuilt:
        if item.header.flags & KEY_FRAME:
            yield KeyFrameRow(chunk.track, item.header.time_us, chunk.index, offset)
        offset += item.row.plain


def _part_heads(manifest: Manifest) -> dict[tuple[int, int], bytes]:
    heads: dict[tuple[int, int], bytes] = {}
    for part in manifest.parts:
        try:
            heads[part.track, part.part] = fragment.parse(part.fragment).head
        except Rejected:
            continue  # a finding already (part.malformed)
    return heads


def _ending_head(manifest: Manifest) -> bytes:
    try:
        return fragment.parse(manifest.ending).head
    except Rejected:
        return b""


class Cuts:
    """The fold over every track's fragments, fed chunk by chunk in order of index."""

    def __init__(self, manifest: Manifest) -> None:
        settings = manifest.settings
        # not validated: a manifest may name more seconds than a new session may
        self._settings = SessionSettings.model_construct(
            chunk_bytes=settings.chunk_bytes, chunk_max_seconds=settings.chunk_max_seconds
        )
        self._tracks: dict[int, Track] = {
            track.id: Track(track.id, track.genesis, 0, track.genesis) for track in manifest.tracks
        }
        self._final = -1
        """Index of the chunk that holds the final; -1: not met yet."""
        self._last: dict[int, int] = {}
        """By track, the index of its last chunk so far."""

    def feed(self, chunk: Chunk, rebuilt: Sequence[RebuiltFragment]) -> Iterator[Finding]:
        """Check the next chunk, in order of index."""
        track = self._tracks.get(chunk.track)
        if track is None or not rebuilt:
            return  # a finding already (track.unlisted, rows.chunk)
        place = f"chunk {chunk.index}"
        for item in rebuilt:
            folded = FoldedFragment(0, item.header, b"", item.head, item.row)
            why = "pause" if _paused(track) else closes_before(track, folded, self._settings)
            first = item is rebuilt[0]
            if first and track.open and why is None and not self._closed_by_final(track):
                yield Finding("cut.false", place, f"the chunk before it on track {track.id} was cut early")
            if not first and why is not None:
                text = f"goes on at seq {item.header.seq}, where it ends by the rules ({why})"
                yield Finding("cut.false", place, text)
            if first or why is not None:
                _close(track)
            track.add(folded)
        self._last[track.id] = chunk.index
        if rebuilt[-1].header.kind is Kind.FINAL:
            self._final = chunk.index

    def _closed_by_final(self, track: Track) -> bool:
        """Return whether the final closed the track's open chunk: it lies between that chunk and the next."""
        return track.id != MAIN and self._final > self._last[track.id]


def _paused(track: Track) -> bool:
    return bool(track.open) and track.open[-1].header.kind is Kind.PAUSE


def _close(track: Track) -> None:
    track.next_seq = track.expected
    track.open, track.open_plain, track.open_clear, track.open_data = [], 0, 0, False
