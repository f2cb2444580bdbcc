"""Owns the check of where chunks were cut: the rules of format.md §5, run again over the fragments.

1. The rules are record's own (handlers.stages.record.open_chunk): this program has one text of them. The
   reader in tests/independent has the other.
2. On one track everything is decided by its fragments. In which order fragments of different tracks came
   cannot be seen, so the numbering between tracks is not checked.

Source: format.md §5.
"""

from collections.abc import Iterator, Sequence

from handlers.stages.record.open_chunk import Track, closes_before
from handlers.stages.record.pieces import FoldedFragment
from handlers.verify.opening import Rebuilt
from handlers.verify.report import Finding
from schemas.events.session import SessionSettings
from schemas.format.fragment import MAIN, Kind
from schemas.format.manifest import Chunk, Manifest


class Cuts:
    """The fold over every track's fragments, fed chunk by chunk in order of index."""

    def __init__(self, manifest: Manifest) -> None:
        known = manifest.settings
        # not validated: a manifest may name more seconds than a new session may
        self._settings = SessionSettings.model_construct(
            chunk_bytes=known.chunk_bytes, chunk_max_seconds=known.chunk_max_seconds
        )
        self._tracks: dict[int, Track] = {
            track.id: Track(track.id, track.genesis, 0, track.genesis) for track in manifest.tracks
        }
        self._final = -1
        """Index of the chunk that holds the final; -1: not met yet."""
        self._last: dict[int, int] = {}
        """By track, the index of its last chunk so far."""

    def feed(self, chunk: Chunk, pieces: Sequence[Rebuilt]) -> Iterator[Finding]:
        """The next chunk in order of index."""
        track = self._tracks.get(chunk.track)
        if track is None or not pieces:
            return  # track.unlisted or rows.chunk has said so
        place = f"chunk {chunk.index}"
        for piece in pieces:
            cutting = FoldedFragment(0, piece.header, b"", piece.head, piece.row)
            why = "pause" if _paused(track) else closes_before(track, cutting, self._settings)
            first = piece is pieces[0]
            if first and track.open and why is None and not self._swept(track):
                yield Finding("cut.false", place, f"the chunk before it on track {track.id} was cut early")
            if not first and why is not None:
                told = f"goes on at seq {piece.header.seq}, where it ends by the rules ({why})"
                yield Finding("cut.false", place, told)
            if first or why is not None:
                _close(track)
            track.add(cutting)
        self._last[track.id] = chunk.index
        if pieces[-1].header.kind is Kind.FINAL:
            self._final = chunk.index

    def _swept(self, track: Track) -> bool:
        """Whether the final closed the track's open chunk: it stands between that one and the next."""
        return track.id != MAIN and self._final > self._last[track.id]


def _paused(track: Track) -> bool:
    return bool(track.open) and track.open[-1].header.kind is Kind.PAUSE


def _close(track: Track) -> None:
    track.next_seq = track.expected
    track.open, track.open_plain, track.open_clear, track.open_data = [], 0, 0, False
