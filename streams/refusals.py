"""Counts what one session refuses of its recording, and keeps the first of it in DEAD."""

from handlers.stages.open_chunk import Piece
from handlers.stages.record import Fold
from schemas.buffers import Bytes
from schemas.ports import Reader
from streams.aside import Aside
from streams.chunk_log import find_fragment

DEAD_LETTERS = 100
"""Refused fragments of a session that are kept in DEAD; the others are only counted."""


class Refusals:
    """Those of one session in this process."""

    def __init__(self, jet: Reader, aside: Aside, session: str) -> None:
        self.count = 0
        self._jet, self._aside, self._session = jet, aside, session

    def bury(self, seq: int, code: str, message: str, body: Bytes) -> None:
        """Count a refused fragment. seq: its stream sequence."""
        self.count += 1
        if self.count <= DEAD_LETTERS:
            self._aside.bury(self._session, seq, code, message, body)

    async def compare_older(self, fold: Fold, piece: Piece) -> None:
        """Find what was taken for this place in the recorded events; the rare path of late doubles."""
        taken = await find_fragment(self._jet, self._session, piece.header)
        if taken is not None:
            fold.compare(piece, *taken)
        else:  # inside a declared gap: it stays lost, for a chunk after it may be closed already
            self.bury(piece.stream_seq, "fragment.late", "its place was declared lost", piece.proof)
