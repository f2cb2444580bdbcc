"""The bodies of the chunk events, which each stage publishes for the next one.

1. An event carries claim checks, never chunk bytes. `recorded` names the stream sequences of its fragments;
   every later event names the stream sequence of its `recorded`.
2. No value comes from a clock or from today's configuration: the same fragments give the same bodies.
3. `type` carries a version; schemas.events.upcast reads older versions. Unknown members are ignored.
"""

from typing import Literal

from schemas.types import (
    B64,
    Count,
    EndKind,
    Frozen,
    Hex16,
    Hex32,
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
    """The members of every chunk event: session, chunk index and run."""

    session: str
    uid: Hex16
    run: Count = 0
    index: Count


class TrackState(Frozen):
    """One track in the fold of `record`. `head` is the genesis while `next_seq` is 0."""

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
    """A fragment of this track was lost."""
    open: tuple[int, ...]
    """Stream sequences of the open chunk's fragments, in order of seq."""
    early: tuple[int, ...]
    """Stream sequences of fragments that wait for an earlier one."""


class FoldState(Frozen):
    """The fold of `record` after one step. With the named fragments the fold continues exactly from here.

    at: stream sequence of the fragment that caused the step. It may still wait in `early` or `ending`.
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
    """Accepted gap fragments: how often the host says that it could not record."""
    host_gap_reason: str = ""
    """Reason in the last gap fragment."""
    refused_final: str = ""
    """Code of a refused final; the platform must then end the recording. Empty: none was refused."""
    ending: Count = 0
    """Stream sequence of the final or end fragment in progress; 0: none."""

    @property
    def named(self) -> list[int]:
        """Stream sequences, up to `at`, of the fragments outside closed chunks."""
        waiting = [seq for track in self.tracks for seq in (*track.open, *track.early)]
        return [*waiting, self.ending] if self.ending else waiting

    @property
    def resume(self) -> int:
        """The lowest stream sequence outside closed chunks."""
        return min([*self.named, self.at + 1])


class Equivocation(Frozen):
    """Two validly signed fragments for one (track, seq). a, b: header ‖ H(body) ‖ signature, 192 bytes."""

    track: int
    seq: Count
    a: B64
    b: B64


class Recorded(ChunkEvent):
    """A closed chunk, as a claim check into RECORDINGS; also the checkpoint of `record`."""

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
    """Previous head in the first fragment."""
    last_head: Hex32
    last_header: Hex96
    rows: B64
    """The fragments' rows, joined: type 2 of an index chunk (format.md §8), by seq."""
    stream: tuple[int, ...]
    """Stream sequences of the fragments by seq, delta-coded: the first, then the differences."""
    equivocations: tuple[Equivocation, ...] = ()
    """Found since the previous event."""
    state: FoldState

    @property
    def part_fragment(self) -> bytes:
        """The whole part fragment. Its key seals the data fragments of this chunk."""
        return next(track.part_fragment for track in self.state.tracks if track.id == self.track)


class TrackEnd(Frozen):
    """The end of one track."""

    id: int
    last_seq: Count
    head: Hex32
    plain: Count


class Ended(Frozen):
    """The last event of a recording."""

    type: Literal["lucid.chunk.ended.v1"] = "lucid.chunk.ended.v1"
    session: str
    uid: Hex16
    chunks: Count
    fragments: Count
    plain: Count
    tracks: tuple[TrackEnd, ...]
    """The accepted fragments of each track: last seq, head and plain bytes."""
    genesis: dict[int, Hex32]
    """By track id."""
    end: EndKind
    reason: Label
    ended_us: TimeUs
    ending: B64
    """The whole final or end fragment, as it stands in the stream. An `end` fragment names no tracks."""
    equivocations: tuple[Equivocation, ...] = ()
    state: FoldState


class StageEvent(ChunkEvent):
    """The members of every stage's event. recorded: stream sequence of the chunk's `recorded` event."""

    recorded: Count


class Redriven(StageEvent):
    """A chunk that `recover` or `replay` drives again, under a new run."""

    type: Literal["lucid.chunk.redriven.v1"] = "lucid.chunk.redriven.v1"


class Chunked(StageEvent):
    """The chunk's plain bytes were opened and joined."""

    type: Literal["lucid.chunk.chunked.v1"] = "lucid.chunk.chunked.v1"
    plain: Count


class Compressed(StageEvent):
    """The chunk was compressed; codec 0: compression did not pay, and the payload is the plain bytes."""

    type: Literal["lucid.chunk.compressed.v1"] = "lucid.chunk.compressed.v1"
    plain: Count
    codec: int
    build: Label
    """Name and version of the codec's library, in every later event, too."""
    payload: Count
    """Length of the payload, bytes."""


class Encrypted(StageEvent):
    """The chunk was sealed. sealed: length of the file, bytes; digest: H(whole file)."""

    type: Literal["lucid.chunk.encrypted.v1"] = "lucid.chunk.encrypted.v1"
    header: Hex128
    build: Label
    sealed: Count
    digest: Hex32


class Proven(StageEvent):
    """The stage `merkle` made the chunk's entry and leaf. The seal builds the tree of all leaves."""

    type: Literal["lucid.chunk.proven.v1"] = "lucid.chunk.proven.v1"
    entry: Hex158
    leaf: Hex32
    build: Label
    codec: int


class Stored(StageEvent):
    """The sealed chunk is durable. `entry` is recomputed from the bytes that were read back."""

    type: Literal["lucid.chunk.stored.v1"] = "lucid.chunk.stored.v1"
    entry: Hex158
    leaf: Hex32
    build: Label
    codec: int


class Dead(Frozen):
    """A dead letter: a job that may not be tried again, or a refused fragment."""

    type: Literal["lucid.dead.v1"] = "lucid.dead.v1"
    stage: str
    session: str
    index: int = -1
    """-1: the dead letter is not about a chunk."""
    run: Count = 0
    seq: Count = 0
    """Stream sequence of the refused message."""
    code: str
    message: str
    body: B64 = b""
