"""Owns what a manifest says is missing: holes in a track's seqs, and lost chunks (format.md §9).

1. A hole is exactly one gap. A lost chunk is a gap of its own; beside a hole there are two.
2. `after` is the fragment with last_seq + 1, absent where none was stored.
3. Who declared a gap: the host where a gap fragment stands right behind it, else the installation.
"""

from collections.abc import Iterator, Sequence

from handlers.seal.material import Material
from schemas.events.chunk import Ended
from schemas.format.fragment import FinalBody, Kind, TrackTail, parse
from schemas.format.fragment_bodies import GapBody
from schemas.format.index import Entry, FragmentRow
from schemas.format.manifest import Gap, SignedHead

MISSING = "missing"
"""Reason of a hole that nobody explained."""

Placed = tuple[Entry, Sequence[FragmentRow]]


def gaps(material: Material) -> list[Gap]:
    """Every gap, in order of (track, first_seq)."""
    tails: dict[int, TrackTail] = {tail.id: tail for tail in final_tails(material.ended)}
    found: list[Gap] = []
    for track in sorted(tracks(material)):
        placed = [
            (entry, rows)
            for entry, rows in zip(material.entries, material.rows, strict=True)
            if entry.track == track
        ]
        found.extend(_of_track(material, material.ended.genesis[track], placed, tails.get(track)))
    return sorted(found, key=lambda gap: (gap.track, gap.first_seq))


def tracks(material: Material) -> set[int]:
    """Tracks with a stored fragment, or named by `final`."""
    named = {tail.id for tail in final_tails(material.ended)}
    return {entry.track for entry in material.entries} | named


def final_tails(ended: Ended) -> tuple[TrackTail, ...]:
    """What `final` says of the tracks. An `end` says nothing that the chunks do not."""
    return FinalBody.parse(parse(ended.ending).body).tracks if ended.end == "final" else ()


def _of_track(
    material: Material, genesis: bytes, placed: Sequence[Placed], tail: TrackTail | None
) -> Iterator[Gap]:
    seq, head, part = 0, genesis, 0
    for number, (entry, rows) in enumerate(placed):
        if entry.first_seq > seq:
            yield _gap(
                (entry.track, part, seq, entry.first_seq - 1, head, entry.prev_head),
                _declared(rows[0]),
                _first(material, entry, rows),
            )
        if entry.lost:
            following = placed[number + 1] if number + 1 < len(placed) else None
            follows = following is not None and following[0].first_seq == entry.last_seq + 1
            yield _gap(
                (entry.track, entry.part, entry.first_seq, entry.last_seq, entry.prev_head, entry.last_head),
                ("installation", material.session.losses[entry.index]),
                _first(material, *following) if following is not None and follows else None,
            )
        seq, head, part = entry.last_seq + 1, entry.last_head, entry.part
    if tail is not None and tail.last_seq >= seq:
        yield _gap((tail.id, part, seq, tail.last_seq, head, tail.head), ("installation", MISSING), None)


def _gap(
    hole: tuple[int, int, int, int, bytes, bytes], declared: tuple[str, str], after: SignedHead | None
) -> Gap:
    """hole: track, part, first and last seq, head before, previous head after."""
    track, part, first_seq, last_seq, head_before, prev_head_after = hole
    by, reason = declared
    return Gap(
        track=track,  # type: ignore[arg-type]  # Gap refuses another
        part=part,
        first_seq=first_seq,
        last_seq=last_seq,
        head_before=head_before,
        prev_head_after=prev_head_after,
        by=by,  # type: ignore[arg-type]
        reason=reason,
        after=after,
    )


def _first(material: Material, entry: Entry, rows: Sequence[FragmentRow]) -> SignedHead:
    """The first fragment of a chunk, as the host signed it."""
    row = rows[0]
    header = row.header(material.created.uid, entry.track, entry.part, entry.first_seq, entry.prev_head)
    return SignedHead(header=header.pack(), body_digest=row.body_digest, signature=row.signature)


def _declared(after: FragmentRow) -> tuple[str, str]:
    if after.kind is Kind.GAP:
        return "host", GapBody.parse(after.body).reason
    return "installation", MISSING
