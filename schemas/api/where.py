"""The body of `where`: where each chunk of a session is. Times are RFC 3339 in UTC; null: not known."""

from datetime import datetime

from pydantic import BaseModel

Sequences = dict[str, int]


class ChunkError(BaseModel):
    """The last error of a chunk, by the stage that had it."""

    stage: str
    code: str
    message: str


class ChunkPlace(BaseModel):
    """One chunk. stage: the one that has it; `stored`, `dead` (no stage takes it again) or `lost`."""

    index: int
    stage: str
    since: datetime | None = None
    """When it came to this stage."""
    run: int = 0
    """How often it was driven again."""
    attempts: int | None = None
    """How often this stage has begun with it. Null: no stage has it, or its worker does not answer."""
    busy: bool = False
    """A worker has a job of it now."""
    error: ChunkError | None = None
    trace_id: str | None = None
    expected_at: datetime | None = None
    """When it will be stored, by the pace of the last stored chunks."""


class WhereShown(BaseModel):
    """The chunks of a session by stage, and one page of them.

    next: the `after` of the next page; null: there is none.
    """

    session_id: str
    status: str
    sealed: bool
    computed_at: datetime | None = None
    sequences: Sequences = {}
    """The answer is exact at these sequences of the streams CHUNKS and DEAD."""
    recorded: int
    stages: dict[str, int]
    """Chunks by stage."""
    waiting_fragments: int = 0
    """In the stream, and in no chunk yet."""
    pending: int = 0
    """Chunks that a stage has."""
    lag_s: float = 0
    """Age of the oldest of them."""
    moved_at: datetime | None = None
    """When a chunk last came to another stage."""
    chunk_s: float | None = None
    """The pace: seconds for each chunk."""
    expected_at: datetime | None = None
    """When all of them will be stored."""
    refused: int = 0
    """Messages that no stage takes."""
    chunks: list[ChunkPlace]
    next: int | None = None
