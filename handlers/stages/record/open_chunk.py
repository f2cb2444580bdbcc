"""The open chunk of one track, and the rule when it closes before the next fragment (format.md §5).

1. The rule sees the open chunk and the next fragment only: no closed chunk, no later fragment, no clock.
2. A chunk never crosses parts or tracks.
"""

from dataclasses import dataclass, field

from handlers.stages.record.pieces import FoldedFragment
from schemas.events.chunk import ClosedBy
from schemas.events.session import SessionSettings
from schemas.format.fragment import KEY_FRAME, Kind, TrackTail

MAX_FRAGMENTS = 2048
MAX_CLEAR_BYTES = 256 * 1024
RECENT = 256
"""Number of accepted fragments kept, to tell a duplicate from an equivocation: four windows."""


@dataclass(slots=True)
class Track:
    """One track of a fold: the sum of its closed chunks, its open chunk, its early and recent fragments."""

    id: int
    genesis: bytes
    next_seq: int
    """The seq after the closed chunks, as `head` is the head at their end."""
    head: bytes
    offset: int = 0
    """Plain bytes of the closed chunks."""
    part: int = -1
    part_fragment: bytes = b""
    open: list[FoldedFragment] = field(default_factory=list)
    open_plain: int = 0
    """Plain bytes of the open chunk."""
    open_clear: int = 0
    """Bytes of its clear bodies."""
    open_data: bool = False
    """Whether it holds a plain byte."""
    early: dict[int, FoldedFragment] = field(default_factory=dict)
    """Fragments that wait for one before them, by seq."""
    recent: dict[int, FoldedFragment] = field(default_factory=dict)
    lossy: bool = False
    """A fragment of this track was lost."""

    @property
    def expected(self) -> int:
        """The seq after the open chunk."""
        return self.open[-1].header.seq + 1 if self.open else self.next_seq

    @property
    def live_head(self) -> bytes:
        """The head at the end of the open chunk."""
        return self.open[-1].head if self.open else self.head

    @property
    def plain(self) -> int:
        """Plain bytes of the track up to the end of the open chunk."""
        return self.offset + self.open_plain

    def known(self, seq: int) -> FoldedFragment | None:
        """Return the fragment that took this seq first, if it waits, is in the open chunk, or is recent."""
        if self.open and self.open[0].header.seq <= seq < self.expected:
            return self.open[seq - self.open[0].header.seq]
        return self.early.get(seq) or self.recent.get(seq)

    def add(self, fragment: FoldedFragment) -> None:
        """Add an accepted fragment to the open chunk."""
        if fragment.header.kind == Kind.PART:
            self.part, self.part_fragment = fragment.header.part, fragment.whole
        self.lossy = self.lossy or fragment.header.seq != self.expected
        self.open.append(fragment)
        self.open_plain += fragment.row.plain
        self.open_clear += len(fragment.row.body)
        self.open_data = self.open_data or fragment.row.plain > 0
        self.recent[fragment.header.seq] = fragment
        if len(self.recent) > RECENT:
            del self.recent[next(iter(self.recent))]

    def ends_at(self, tail: TrackTail) -> bool:
        """Whether the tail that a final names is this track's end. After a loss it may name more bytes."""
        stands = (tail.last_seq, tail.head) == (self.expected - 1, self.live_head)
        return stands and self.allows_plain(tail.plain)

    def allows_plain(self, plain: int, *, lossy: bool = False) -> bool:
        """Whether the track can have `plain` bytes in all. lossy: fragments at its end are lost, too."""
        return plain >= self.plain if self.lossy or lossy else plain == self.plain

    def tail(self) -> TrackTail:
        members = {"id": self.id, "last_seq": self.expected - 1, "head": self.live_head, "plain": self.plain}
        return TrackTail.model_validate(members)


def closes_before(track: Track, fragment: FoldedFragment, settings: SessionSettings) -> ClosedBy | None:
    """Return why the open chunk closes before `fragment`; None: it stays open (order as in format.md §5)."""
    if not track.open:
        return None
    header, plain, size = fragment.header, track.open_plain, settings.chunk_bytes
    if header.kind == Kind.PART:
        return "part"
    if header.seq != track.expected:
        return "gap"
    if plain + fragment.row.plain > size:
        return "size"
    if header.flags & KEY_FRAME and 4 * plain >= 3 * size:
        return "key_frame"
    due_us = track.open[0].header.time_us + settings.chunk_max_seconds * 1_000_000
    if track.open_data and header.time_us >= due_us:
        return "seconds"
    if len(track.open) + 1 > MAX_FRAGMENTS:
        return "fragments"
    if track.open_clear + len(fragment.row.body) > MAX_CLEAR_BYTES:
        return "clear_bytes"
    return None
