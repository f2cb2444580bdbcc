"""Checks the tracks in a final against the accepted fragments (format.md §5).

1. For track 0 a final names its own place in the chain.
2. Another track may lack fragments at its end: they are lost, and become a gap.
3. If fragments are lost, a final may name more plain bytes than were accepted.
"""

from collections.abc import Mapping

from handlers.stages.record.open_chunk import Track
from handlers.stages.record.pieces import FoldedFragment
from schemas.format.fragment import MAIN, FinalBody, TrackTail


def check_final(tracks: Mapping[int, Track], final: FoldedFragment, gap: bool) -> tuple[str, str] | None:
    """Return code and message of the refusal of this final; None: it fits.

    gap: fragments right before it are missing.
    """
    named = {tail.id: tail for tail in FinalBody.parse(final.row.body).tracks}
    if not {track.id for track in tracks.values() if track.expected} <= set(named):
        return "fragment.final", "final does not name every track"
    for track_id, tail in named.items():
        track = tracks.get(track_id) or Track(track_id, b"", 0, b"")
        fits = _fits_main(track, tail, final, gap) if track_id == MAIN else _fits(track, tail)
        if not fits:
            return "fragment.final", f"final contradicts the fragments of track {track_id}"
    return None


def _fits_main(main: Track, tail: TrackTail, final: FoldedFragment, gap: bool) -> bool:
    stands = (tail.last_seq, tail.head) == (final.header.seq - 1, final.header.prev_head)
    return stands and main.allows_plain(tail.plain, lossy=gap)


def _fits(track: Track, tail: TrackTail) -> bool:
    if track.expected > tail.last_seq:
        return track.ends_at(tail)
    return track.allows_plain(tail.plain, lossy=True)
