"""The manifest: the list of all sealed data, signed by the installation (format.md §9).

1. This module checks form and order; handlers.verify checks digests, heads and signatures.
2. Lists are sorted, each item once. Another order is EvidenceFalse (manifest.form).
3. Items of long lists are dataclasses with slots: an item takes about as much memory as its text.

The form of the text is in schemas.format.document.
"""

import itertools
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from schemas.errors import EvidenceFalse
from schemas.format.chunk_header import INDEX_TRACK, MAX_PLAIN
from schemas.format.document import Document, Strict
from schemas.format.index import ENTRY_NAMES, Entry
from schemas.types import B64, CodecNumber, Count, EndKind, Hex16, Hex32, Hex64, Hex96, Label, TimeUs

MAX_EQUIVOCATIONS = 16
LOST_BUILD = "lost"
"""`build` of a lost chunk."""
FINAL_REASON = "done"
"""`reason` of an ending by the host itself."""
SIGNED_HEAD_BYTES = 96 + 32 + 64
LEAST_FRAGMENT = 96 + 64
"""A header and a signature."""

SLIM = ConfigDict(extra="forbid")

U32 = Annotated[int, Field(ge=0, lt=2**32)]
TrackId = Literal[0, 1]


class SealedSettings(Strict):
    suite: Literal[1, 2]
    codec: CodecNumber
    level: Annotated[int, Field(ge=0, le=22)]
    chunk_bytes: Annotated[int, Field(ge=1 << 18, le=MAX_PLAIN)]
    chunk_max_seconds: Annotated[int, Field(ge=1, lt=2**53)]


class Host(Strict):
    name: Label
    key: Hex32
    counter: Count
    prev_genesis: Hex32
    intake: Hex32
    """H(intake public key)."""
    attested: bool


class SealSigner(Strict):
    key: Hex32
    name: Label


class Lifecycle(Strict):
    last: Annotated[int, Field(ge=1, lt=2**53)]
    """The line of history.ndjson that is SealStarted."""
    digest: Hex32


class TrackGenesis(Strict):
    id: TrackId
    genesis: Hex32


@dataclass(frozen=True, slots=True, kw_only=True, config=SLIM)
class Part:
    track: TrackId
    part: U32
    fragment: Annotated[B64, Field(min_length=LEAST_FRAGMENT)]
    """The whole part fragment."""


@dataclass(frozen=True, slots=True, kw_only=True, config=SLIM)
class EntryFields:
    """The fields of an entry, as JSON members."""

    index: Count
    track: Literal[0, 1, 0xFFFF]
    part: U32
    offset: Count
    plain: U32
    sealed: U32
    first_us: TimeUs
    last_us: TimeUs
    first_seq: Count
    last_seq: Count
    prev_head: Hex32
    last_head: Hex32
    digest: Hex32

    @property
    def entry(self) -> Entry:
        return Entry(**{name: getattr(self, name) for name in ENTRY_NAMES})

    @classmethod
    def members(cls, entry: Entry) -> dict[str, Any]:
        """Return the fields of an entry as keyword arguments."""
        return {name: getattr(entry, name) for name in ENTRY_NAMES}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        try:
            self.entry.check()
        except EvidenceFalse as error:
            raise ValueError(error.message) from None
        return self


@dataclass(frozen=True, slots=True, kw_only=True, config=SLIM)
class SignedHead:
    """The proof of a head: the host's signature."""

    header: Hex96
    body_digest: Hex32
    signature: Hex64


@dataclass(frozen=True, slots=True, kw_only=True, config=SLIM)
class Chunk(EntryFields):
    """A data chunk. header, body_digest, signature: of its last fragment."""

    codec: CodecNumber
    build: Label
    header: Hex96
    body_digest: Hex32
    signature: Hex64

    @model_validator(mode="after")
    def _is_data(self) -> Self:
        if self.track == INDEX_TRACK:
            raise ValueError("an index chunk among the data chunks")
        if self.entry.lost and (self.codec, self.build) != (0, LOST_BUILD):
            raise ValueError(f"a lost chunk has codec 0 and build {LOST_BUILD}")
        return self


@dataclass(frozen=True, slots=True, kw_only=True, config=SLIM)
class IndexChunk(EntryFields):
    @model_validator(mode="after")
    def _is_index(self) -> Self:
        if self.track != INDEX_TRACK:
            raise ValueError("a data chunk among the index chunks")
        return self


@dataclass(frozen=True, slots=True, kw_only=True, config=SLIM)
class Gap:
    """A range of missing seqs, or a lost chunk."""

    track: TrackId
    part: U32
    first_seq: Count
    last_seq: Count
    head_before: Hex32
    prev_head_after: Hex32
    by: Literal["host", "installation"]
    reason: Label
    after: SignedHead | None = None
    """Head of the first fragment after the gap; absent if none was stored."""


class EquivocationItem(Strict):
    """Two signed fragments for one seq. a, b: header ‖ H(body) ‖ signature."""

    track: TrackId
    seq: Count
    a: Annotated[B64, Field(min_length=SIGNED_HEAD_BYTES, max_length=SIGNED_HEAD_BYTES)]
    b: Annotated[B64, Field(min_length=SIGNED_HEAD_BYTES, max_length=SIGNED_HEAD_BYTES)]


class Merkle(Strict):
    tree_size: Count
    root: Hex32


class Totals(Strict):
    chunks: Count
    index_chunks: Count
    fragments: Count
    plain: Count
    sealed: Count


class Manifest(Document):
    """The payload of a manifest's envelope."""

    NAME: ClassVar[str] = "manifest"

    type: Literal["lucid.manifest"] = "lucid.manifest"
    version: Literal[1] = 1
    seal_no: Annotated[int, Field(ge=1, lt=2**53)]
    prev_manifest: Hex32
    """H of the previous seal's envelope; zero for the first seal."""
    session: Label
    uid: Hex16
    dek_id: Hex16
    settings: SealedSettings
    host: Host
    signer: SealSigner
    started_us: TimeUs
    ended_us: TimeUs
    sealed_us: TimeUs
    end: EndKind
    reason: Label
    lifecycle: Lifecycle
    tracks: Annotated[tuple[TrackGenesis, ...], Field(max_length=2)]
    ending: Annotated[B64, Field(min_length=LEAST_FRAGMENT)]
    """The whole final or end fragment."""
    parts: tuple[Part, ...]
    chunks: tuple[Chunk, ...]
    gaps: tuple[Gap, ...]
    equivocations: Annotated[tuple[EquivocationItem, ...], Field(max_length=MAX_EQUIVOCATIONS)]
    merkle: Merkle
    totals: Totals
    index: tuple[IndexChunk, ...]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _rising("tracks", [track.id for track in self.tracks])
        _rising("parts", [(part.track, part.part) for part in self.parts])
        _rising("gaps", [(gap.track, gap.first_seq) for gap in self.gaps])
        listed = [item.index for item in (*self.chunks, *self.index)]
        if listed != list(range(len(listed))):
            raise ValueError("chunks, then index chunks, are not numbered from 0 on")
        return self


def _rising(what: str, keys: Sequence[int] | Sequence[tuple[int, int]]) -> None:
    if any(not a < b for a, b in itertools.pairwise(keys)):  # type: ignore[operator]
        raise ValueError(f"{what} are not in order, each once")
