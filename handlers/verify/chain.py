"""Checks the host's chain: heads, signatures, continuity, and every gap in it.

1. A listed head is recomputed from its header, and the host must have signed it.
2. A track runs from its genesis to the end that the ending names. Missing fragments must be declared exactly:
   a hole is one gap, a lost chunk is one gap, and nothing else is a gap.
3. A declared gap is a note; everything else is a finding.

Source: format.md §4, §9, §13.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

from handlers.crypto.signatures import verify_signature
from handlers.verify.report import Finding
from schemas.errors import Rejected
from schemas.format import fragment
from schemas.format.fragment import Header, Kind
from schemas.format.manifest import Chunk, Gap, Manifest


class Tail(NamedTuple):
    """Where a track ends: the seq and head of its last fragment, the ending itself included."""

    last_seq: int
    head: bytes
    may_lack: bool
    """Fragments right before it may be missing; not if the installation itself ended the session."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A gap that the walk found; `after` is the chunk that begins right behind it, if any."""

    track: int
    part: int
    first_seq: int
    last_seq: int
    head_before: bytes
    prev_head_after: bytes
    after: Chunk | None
    lost: int = -1
    """Index of the lost chunk; -1: a hole."""

    @property
    def place(self) -> str:
        return f"track {self.track} seq {self.first_seq}-{self.last_seq}"


def signed_head(
    manifest: Manifest, raw_header: bytes, body_digest: bytes, signature: bytes, place: str
) -> tuple[Header | None, bytes, list[Finding]]:
    """Return a header of the manifest, its head, and the findings about the two by themselves."""
    top = fragment.head(raw_header, body_digest)
    found: list[Finding] = []
    try:
        header = Header.parse(raw_header)
    except Rejected as error:
        return None, top, [Finding("chain.header", place, error.message)]
    if header.uid != manifest.uid or header.kind is Kind.END:
        found.append(Finding("chain.header", place, "the fragment is not of this session's host"))
    if not verify_signature(manifest.host.key, top, signature, fragment.SIGNED):
        found.append(Finding("chain.signature", place, "the host did not sign this head", found=top.hex()))
    return header, top, found


def check_heads(manifest: Manifest) -> Iterator[Finding]:
    """Check the last fragment of every chunk, lost ones too."""
    for chunk in manifest.chunks:
        place = f"chunk {chunk.index}"
        header, top, found = signed_head(manifest, chunk.header, chunk.body_digest, chunk.signature, place)
        yield from found
        if top != chunk.last_head:
            yield Finding(
                "chain.head",
                place,
                "its head does not follow from its last fragment",
                sealed=chunk.last_head.hex(),
                found=top.hex(),
            )
        if header is None:
            continue
        stated = (header.track, header.part, header.seq, header.time_us)
        if stated != (chunk.track, chunk.part, chunk.last_seq, chunk.last_us):
            yield Finding("chain.header", place, "its last fragment is of another track, part, seq or time")
        if chunk.first_seq == chunk.last_seq and not _alone(chunk, header):
            yield Finding("chain.header", place, "its only fragment contradicts the entry")


def _alone(chunk: Chunk, header: Header) -> bool:
    plain = header.body_length - fragment.TAG_BYTES if header.kind is Kind.DATA else 0
    return (header.prev_head, header.time_us, plain) == (chunk.prev_head, chunk.first_us, chunk.plain)


def check_chain(manifest: Manifest, tails: Mapping[int, Tail]) -> Iterator[Finding]:
    """Walk every track, and compare its missing fragments with the declared gaps. tails: those known."""
    missing: list[Missing] = []
    for track in manifest.tracks:
        chunks = [chunk for chunk in manifest.chunks if chunk.track == track.id]
        yield from _walk(track.id, track.genesis, chunks, tails.get(track.id), missing)
    yield from _check_gaps(manifest, missing)


def _walk(
    track: int, genesis: bytes, chunks: Sequence[Chunk], tail: Tail | None, missing: list[Missing]
) -> Iterator[Finding]:
    seq, head, part = 0, genesis, -1
    for chunk, following in zip_longest(chunks, chunks[1:]):
        place = f"chunk {chunk.index}"
        if chunk.part < part or (chunk.part > part + 1 and chunk.first_seq <= seq):
            yield Finding("chain.part", place, f"part {chunk.part} comes after part {part}")
        if chunk.first_seq > seq:
            hole = (track, max(part, 0), seq, chunk.first_seq - 1, head, chunk.prev_head)
            missing.append(Missing(*hole, after=chunk))
        elif chunk.first_seq < seq:
            yield Finding("chain.overlap", place, f"begins at seq {chunk.first_seq}, seq {seq} comes next")
        elif chunk.prev_head != head:
            yield Finding(
                "chain.broken",
                place,
                f"does not follow seq {seq - 1} of track {track}",
                sealed=head.hex(),
                found=chunk.prev_head.hex(),
            )
        if chunk.entry.lost:
            follows = following is not None and following.first_seq == chunk.last_seq + 1
            lost = (track, chunk.part, chunk.first_seq, chunk.last_seq, chunk.prev_head, chunk.last_head)
            missing.append(Missing(*lost, after=following if follows else None, lost=chunk.index))
        seq, head, part = max(seq, chunk.last_seq + 1), chunk.last_head, chunk.part
    if tail is None:
        return
    if tail.last_seq >= seq and tail.may_lack:
        missing.append(Missing(track, max(part, 0), seq, tail.last_seq, head, tail.head, after=None))
    elif (tail.last_seq + 1, tail.head) != (seq, head):
        yield Finding(
            "ending.tracks",
            f"track {track}",
            f"the ending names seq {tail.last_seq}, the chunks end at seq {seq - 1}",
            sealed=tail.head.hex(),
            found=head.hex(),
        )


def _check_gaps(manifest: Manifest, missing: Sequence[Missing]) -> Iterator[Finding]:
    declared: dict[tuple[int, int], Gap] = {(gap.track, gap.first_seq): gap for gap in manifest.gaps}
    for hole in missing:
        gap = declared.pop((hole.track, hole.first_seq), None)
        if gap is None:
            count = hole.last_seq - hole.first_seq + 1
            yield Finding("chain.hole", hole.place, f"{count} fragments are missing, and no gap is declared")
            continue
        stated = (gap.part, gap.last_seq, gap.head_before, gap.prev_head_after)
        if stated != (hole.part, hole.last_seq, hole.head_before, hole.prev_head_after):
            yield Finding("gap.false", hole.place, "the declared gap has another part, length or heads")
        yield from _check_after(manifest, gap, hole)
        yield _note(gap, hole)
    for gap in declared.values():
        place = f"track {gap.track} seq {gap.first_seq}-{gap.last_seq}"
        yield Finding("gap.unfit", place, "nothing is missing there")


def _check_after(manifest: Manifest, gap: Gap, hole: Missing) -> Iterator[Finding]:
    """Check `after`: the first fragment of the chunk right behind the gap, absent if there is none."""
    if (gap.after is None) != (hole.after is None):
        there = "absent" if gap.after is None else "there"
        yield Finding("gap.after", hole.place, f"the fragment after the gap is {there}, and must not be")
    if gap.after is None or hole.after is None:
        return
    after, chunk = gap.after, hole.after
    header, top, found = signed_head(manifest, after.header, after.body_digest, after.signature, hole.place)
    yield from found
    if header is None:
        return
    stated = (header.track, header.part, header.seq, header.time_us, header.prev_head)
    if stated != (hole.track, chunk.part, chunk.first_seq, chunk.first_us, chunk.prev_head):
        yield Finding("gap.after", hole.place, "the fragment after the gap is not the next chunk's first")
    elif chunk.first_seq == chunk.last_seq and top != chunk.last_head:
        yield Finding("gap.after", hole.place, "the fragment after the gap is not the next chunk's only one")


def _note(gap: Gap, hole: Missing) -> Finding:
    count = hole.last_seq - hole.first_seq + 1
    text = f"{count} fragments, by the {gap.by}: {gap.reason}"
    if hole.lost >= 0:
        return Finding("chunk.lost", f"chunk {hole.lost}", f"is lost, {text}")
    return Finding("gap.declared", hole.place, f"missing, as declared: {text}")
