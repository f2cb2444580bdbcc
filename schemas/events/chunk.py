"""Owns the bodies of the chunk events: what each stage says to the next.

1. An event carries claim checks, never chunk bytes: `recorded` names the fragments' stream sequences,
   every later event names the stream sequence of its `recorded`.
2. Nothing here comes from a clock or from today's configuration: the same fragments give the same bodies.
3. `type` is versioned; an older version is raised by schemas.events.upcast; unknown members are ignored.
"""

from typing import Literal

from schemas.types import (
    B64,
    Count,
    EndKind,
    Frozen,
    Hex16,
    Hex32,
    Hex64,
    Hex96,
    Hex128,
    Hex158,
    Label,
    TimeUs,
)

ClosedBy = Literal[
    "part", "gap", "size", "key_frame", "seconds", "fragments", "clear_bytes", "pause", "final", "end"
]


class ChunkEvent(Frozen):
    """What every chunk event says: which chunk of which session, and under which run."""

    session: str
    uid: Hex16
    run: Count = 0
    index: Count


class TrackState(Frozen):
    """One track of record's fold. `head` is the genesis while `next_seq` is 0."""

    id: int
    genesis: Hex32
    next_seq: Count
    head: Hex32
    offset: Count
    """Plain bytes of the closed chunks of this track."""
    part: int
    """-1 before the first part fragment."""
    part_fragment: B64
    """The whole part fragment of `part`; empty before the first."""
    lossy: bool = False
    """Some fragment of this track was lost."""
    open: tuple[int, ...]
    """Stream sequences of the open chunk's fragments, in order of seq."""
    early: tuple[int, ...]
    """Stream sequences of fragments that are waiting for one before them."""


class FoldState(Frozen):
    """Record's whole fold after one step; with the named fragments it can be continued exactly.

    `at` is the stream sequence of the fragment that caused the step (it may still wait in `early`, or in
    `ending` when it is the one that ends the session).
    """

    at: Count
    next_index: Count
    fragments: Count
    """Fragments inside closed chunks."""
    plain: Count
    """Plain bytes inside closed chunks."""
    tracks: tuple[TrackState, ...]
    equivocations: Count = 0
    host_gaps: Count = 0
    """Gap fragments that were taken: how often the host says that it could not record."""
    host_gap_reason: str = ""
    """Of the last one."""
    refused_final: str = ""
    """Why the host's own final was refused: the platform is to end the recording."""
    ending: Count = 0
    """Stream sequence of the final or end fragment that is being taken; 0: none."""

    @property
    def named(self) -> list[int]:
        """Stream sequences of the fragments that are in no closed chunk, of those up to `at`."""
        waiting = [seq for track in self.tracks for seq in (*track.open, *track.early)]
        return [*waiting, self.ending] if self.ending else waiting

    @property
    def resume(self) -> int:
        """The lowest stream sequence that is not inside a closed chunk."""
        return min([*self.named, self.at + 1])


class Equivocation(Frozen):
    """Two validly signed fragments for one (track, seq): each header ‖ H(body) ‖ signature, 192 bytes."""

    track: int
    seq: Count
    a: B64
    b: B64


class Recorded(ChunkEvent):
    """A closed chunk, as a claim check into RECORDINGS. Also record's checkpoint."""

    type: Literal["lucid.chunk.recorded.v1"] = "lucid.chunk.recorded.v1"
    host: str
    track: int
    part: Count
    offset: Count
    plain: Count
    closed_by: ClosedBy
    first_seq: Count
    last_seq: Count
    first_us: TimeUs
    last_us: TimeUs
    prev_head: Hex32
    """The previous head that the first fragment names."""
    last_head: Hex32
    last_header: Hex96
    rows: B64
    """Rows of type 2 (format.md §8), length-prefixed, one for each fragment by seq."""
    stream: tuple[int, ...]
    """Stream sequences of the fragments by seq, delta-coded: the first, then differences."""
    equivocations: tuple[Equivocation, ...] = ()
    """Those found since the event before."""
    state: FoldState

    @property
    def part_fragment(self) -> bytes:
        """The whole part fragment under whose key the data fragments are sealed."""
        return next(track.part_fragment for track in self.state.tracks if track.id == self.track)


class TrackEnd(Frozen):
    """One track at the end of a session: what `final` or `end` names."""

    id: int
    last_seq: Count
    head: Hex32
    plain: Count


class Ended(Frozen):
    """The last event of a session's recording: nothing more comes."""

    type: Literal["lucid.chunk.ended.v1"] = "lucid.chunk.ended.v1"
    session: str
    uid: Hex16
    chunks: Count
    fragments: Count
    plain: Count
    tracks: tuple[TrackEnd, ...]
    """What was taken, by track: its last seq, head and plain bytes."""
    genesis: dict[int, Hex32]
    end: EndKind
    reason: Label
    ended_us: TimeUs
    ending: B64
    """The whole fragment that ended it, as it stands in the stream: an `end` there names no tracks."""
    equivocations: tuple[Equivocation, ...] = ()
    state: FoldState


class StageEvent(ChunkEvent):
    """What a stage publishes: the stream sequence of the chunk's `recorded` event, and its own result."""

    recorded: Count


class Redriven(StageEvent):
    """A claim given out again by recover or replay, under a new run."""

    type: Literal["lucid.chunk.redriven.v1"] = "lucid.chunk.redriven.v1"


class Chunked(StageEvent):
    """The chunk's plain bytes were opened and joined."""

    type: Literal["lucid.chunk.chunked.v1"] = "lucid.chunk.chunked.v1"
    plain: Count


class Compressed(StageEvent):
    """payload = what the codec made; codec 0 where it did not pay."""

    type: Literal["lucid.chunk.compressed.v1"] = "lucid.chunk.compressed.v1"
    plain: Count
    codec: int
    build: Label
    payload: Count
    """Length of the payload, bytes."""


class Encrypted(StageEvent):
    """The sealed chunk: its header, its length, H(whole file)."""

    type: Literal["lucid.chunk.encrypted.v1"] = "lucid.chunk.encrypted.v1"
    header: Hex128
    build: Label
    sealed: Count
    digest: Hex32


class Proven(StageEvent):
    """The leaf of the session's tree."""

    type: Literal["lucid.chunk.proven.v1"] = "lucid.chunk.proven.v1"
    entry: Hex158
    leaf: Hex32
    build: Label
    codec: int


class Stored(StageEvent):
    """The sealed chunk is durable; `entry` is recomputed from what was read back."""

    type: Literal["lucid.chunk.stored.v1"] = "lucid.chunk.stored.v1"
    entry: Hex158
    leaf: Hex32
    build: Label
    codec: int


class Dead(Frozen):
    """A job that will not be tried again, or a fragment that was refused."""

    type: Literal["lucid.dead.v1"] = "lucid.dead.v1"
    stage: str
    session: str
    index: int = -1
    """-1: not a chunk."""
    run: Count = 0
    seq: Count = 0
    """Stream sequence of what was refused."""
    code: str
    message: str
    body: B64 = b""


__all__ = [
    "ChunkEvent",
    "Chunked",
    "ClosedBy",
    "Compressed",
    "Dead",
    "Encrypted",
    "Ended",
    "Equivocation",
    "FoldState",
    "Hex64",
    "Proven",
    "Recorded",
    "Redriven",
    "StageEvent",
    "Stored",
    "TrackEnd",
    "TrackState",
]
