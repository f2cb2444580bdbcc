"""The bodies of session-processor and session-storage: one chunk, a batch, a tree, a proof, a list.

Digests are lowercase hex, BLAKE3; binary in JSON is padded base64; sizes are bytes; times are µs since 1970.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints

from schemas.api.problem import Problem
from schemas.format.chunk_header import MAX_PLAIN, CodecName, SuiteName

BATCH_MOST = 1000
"""Chunks of one batch."""
BASE64_MOST = -(-MAX_PLAIN // 3) * 4
KEY_TEXT = 44
"""Characters of 32 bytes in base64."""

Uid = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Number = Annotated[int, Field(ge=0, lt=2**53)]
Time = Annotated[int, Field(gt=-(2**53), lt=2**53)]
U32 = Annotated[int, Field(ge=0, lt=2**32)]
ZERO_TEXT = "0" * 64


class ChunkParameters(BaseModel):
    """How one chunk is processed. Without `session` it stands alone: its place and settings are given here.

    With `session` it is chunk `index` of that session: place, settings and key are the session's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    codec: CodecName | None = None
    level: Annotated[int, Field(ge=0, le=22)] | None = None
    threshold: Annotated[int, Field(ge=0, le=MAX_PLAIN)] | None = None
    suite: SuiteName | None = None
    uid: Uid | None = None
    """Without it one is made."""
    index: Number = 0
    track: Literal[0, 1] = 0
    part: U32 = 0
    offset: Number = 0
    first_us: Time = 0
    last_us: Time = 0
    first_seq: Number = 0
    last_seq: Number = 0
    prev_head: Digest = ZERO_TEXT
    last_head: Digest = ZERO_TEXT
    session: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,100}$")] | None = None
    store: bool = False
    """Store the sealed chunk of `session`."""
    sealed: bool = False
    """Answer the sealed bytes, too."""


OF_SESSION = frozenset({"session", "index", "store", "sealed"})
"""The members that a chunk of a session may have; all others come from the session."""


class ChunkRequest(ChunkParameters):
    """One chunk as JSON. key: 32 bytes that seal it; without it a key is made and answered."""

    data: Annotated[str, Field(max_length=BASE64_MOST, json_schema_extra={"format": "byte"})]
    key: Annotated[SecretStr, Field(max_length=KEY_TEXT)] | None = None


class ChunkBatch(BaseModel):
    """Many chunks. Each is a ChunkRequest; a wrong one is answered as a problem and disturbs no other."""

    chunks: Annotated[list[Any], Field(min_length=1, max_length=BATCH_MOST)]


class ChunkMade(BaseModel):
    """One processed chunk. hash: of the sealed bytes; entry, leaf: of the Merkle tree (docs/format.md §7)."""

    session_id: str | None = None
    uid: Uid
    index: int
    track: int
    part: int
    offset: int
    compression: CodecName
    """The codec in use; none: compression did not pay."""
    build: str
    encryption: SuiteName
    bytes: int
    payload_bytes: int
    stored_bytes: int
    compression_ratio: float
    plain_hash: Digest
    hash: Digest
    entry: str
    leaf: Digest
    key_id: str
    key: str | None = None
    """The key that was made for this chunk. It is kept nowhere else."""
    sealed: str | None = None
    location: str | None = None
    """Where the sealed chunk is stored."""


class BatchResult(ChunkMade):
    """position: in the batch, from 0 on."""

    position: int


class BatchProblem(BaseModel):
    position: int
    problem: Problem


class BatchMade(BaseModel):
    """The answers to a batch, each list in the order of the batch."""

    results: list[BatchResult]
    problems: list[BatchProblem]


class Leaf(BaseModel):
    index: int
    leaf: Digest
    hash: Digest | None
    """Of the sealed chunk; null: it was lost."""


class TreeShown(BaseModel):
    """A session's Merkle tree. sealed: its root is signed in the manifest; otherwise it still grows."""

    session_id: str
    uid: Uid
    sealed: bool
    tree_size: int
    root: Digest
    leaves: list[Leaf]
    next: int | None = None
    """The `after` of the next page; null: there is none."""


class InclusionShown(BaseModel):
    """The proof that a leaf is in a tree (RFC 9162 §2.1.3). proof: index u64 ‖ size u64 ‖ path, hex."""

    session_id: str
    sealed: bool
    index: int
    tree_size: int
    root: Digest
    entry: str
    leaf: Digest
    path: list[Digest]
    proof: str


class ConsistencyShown(BaseModel):
    """The proof that a tree begins with an earlier one (RFC 9162 §2.1.4). proof: sizes u64 ‖ path, hex."""

    session_id: str
    sealed: bool
    from_size: int
    from_root: Digest
    to_size: int
    to_root: Digest
    path: list[Digest]
    proof: str


class StoredPut(BaseModel):
    """The chunk is durable, and was read back."""

    session_id: str
    index: int
    created: bool
    hash: Digest
    location: str
