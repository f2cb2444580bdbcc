"""The bodies that the API answers. Times are RFC 3339 in UTC; binary is lowercase hex; sizes are bytes."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field


class Statistics(BaseModel):
    """The content of a session so far. A number that nothing tells is null.

    Only GET tells fragments, errors and gaps.
    """

    duration_s: float = 0
    """To the end of the recording; while it runs, to its last recorded chunk (in a list: 0)."""
    chunks: int = 0
    """Chunks of the recording, lost ones included; index chunks are not counted."""
    chunks_stored: int = 0
    fragments: int | None = None
    bytes: int = 0
    """Plain bytes of the recording. A list counts the index chunks of a sealed one, too."""
    stored_bytes: int | None = None
    """Of a sealed one: index chunks included, as in the ratio."""
    frames: int | None = None
    dropped_frames: int | None = None
    average_fps: float | None = None
    errors: int | None = None
    """Messages that no stage takes."""
    gaps: int | None = None
    """Fragments that are missing, and those that the host tells it lost."""
    compression_ratio: float | None = None


class RdpShown(BaseModel):
    host: str = ""
    port: int = 3389
    username: str = ""
    domain: str = ""
    use_tls: bool = True
    ignore_cert: bool = False
    client_address: str = ""
    """Of the person's RDP client. Empty: the host has not told it."""


class RecordingShown(BaseModel):
    """How the desktop is captured. Null: the host has not told it."""

    frame_rate: int | None = None
    resolution: str | None = None
    quality: str | None = None
    compression: str | None = None
    bitrate: int | None = None
    audio: bool = False
    cursor: bool | None = None


class StorageShown(BaseModel):
    retention_days: int | None = None
    max_size_gb: float | None = None
    encryption: str | None = None
    compression: str | None = None
    backup: bool = False
    archive: bool = False


class MetadataShown(BaseModel):
    project: str = ""
    environment: str = ""
    tags: list[str] = []
    description: str = ""
    owner: str = ""
    priority: str = "normal"


class Seal(BaseModel):
    """The newest seal. manifest: digest of the envelope."""

    seal_no: int
    sealed_at: datetime
    manifest: str
    root: str
    chunks: int
    bytes: int
    stored_bytes: int


class SessionShown(BaseModel):
    """One session. `allowed`: the triggers that can move it now."""

    id: str
    uid: str
    name: str = ""
    status: str
    reason: str
    host: str
    unattested: bool
    """Its bytes came over HTTP: no host vouches for them."""
    revision: int
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None = None
    """When the recording ended; null: it runs, or never started."""
    changed_at: datetime
    retained_until: datetime | None = None
    """When it is destroyed by itself; null: no rule, or the recording is not sealed yet."""
    held: bool
    sealed: bool
    destroyed: bool
    proven_at: datetime | None = None
    """When the scrub last began a check that found it as it was sealed; null: never, or it is damaged now."""
    pipeline_paused: bool = False
    rdp_config: RdpShown = RdpShown()
    recording_config: RecordingShown = RecordingShown()
    storage_config: StorageShown = StorageShown()
    metadata: MetadataShown = MetadataShown()
    seal: Seal | None = None
    allowed: list[str] = []
    statistics: Statistics | None = None


class SessionPage(BaseModel):
    """One page, in the order that was asked for. next: the `cursor` of the next page; null: there is none."""

    sessions: list[SessionShown]
    next: str | None = None
    behind: int = 0
    """Events of the log that the list does not contain yet."""


class Sums(BaseModel):
    """Sums over sessions. Chunks and bytes are those of sealed sessions."""

    sessions: int
    chunks: int
    bytes: int
    stored_bytes: int
    duration_s: float


class SystemStatistics(Sums):
    """The sums over all sessions that fit, and by state."""

    states: dict[str, Sums]
    behind: int = 0


class PipelineShown(BaseModel):
    """How far the six stages of one session are. pipeline_id: its uid, which no other session ever gets."""

    pipeline_id: str
    session_id: str
    status: str
    paused: bool
    recorded: int
    stored: int
    missing_fragments: int
    dead_chunks: int
    refused: int
    waits_for: dict[str, Any] | None = None


class ChunkShown(BaseModel):
    """One chunk. hash: of the sealed bytes, BLAKE3."""

    id: Annotated[str, Field(pattern=r"^[0-9]{10}$")]
    sequence: int
    track: int
    part: int
    offset: int
    status: str
    started_at: datetime
    ended_at: datetime
    duration_s: float
    bytes: int
    stored_bytes: int
    frames: int | None = None
    quality_score: float | None = None
    hash: str | None
    storage_path: str | None
    compression: str
    compression_ratio: float | None
    key_id: str
    first_fragment: int
    last_fragment: int


class ChunkPage(BaseModel):
    """One page of chunks by sequence. next: the `after` of the next page; null: there is none."""

    chunks: list[ChunkShown]
    next: str | None = None


class UploadProgress(BaseModel):
    """How far an upload came. offset: plain bytes that are durable."""

    session_id: str
    offset: int


class RecordingState(BaseModel):
    """One recording of a host. waits_for: why it does not go on now; empty: it does."""

    session_id: str
    host: str
    status: str
    resolution: str
    frame_rate: int
    fragments: int
    acknowledged: int
    bytes: int
    duration_s: float
    waits_for: str = ""
    error: str = ""


class RecordingPage(BaseModel):
    """One page of recordings. next: the `after` of the next page; null: there is none."""

    recordings: list[RecordingState]
    next: int | None = None


class AuditPage(BaseModel):
    """Entries of the audit chain (format.md §16). next: the `after` of the next page; null: there is none."""

    entries: list[dict[str, Any]]
    next: int | None = None


class AccessShown(BaseModel):
    """A request to watch or export, and its answer. stage: where it stands now."""

    id: str
    stage: str
    session_id: str
    look: str
    requester: str
    reason: str
    asked_at: datetime
    ends_at: datetime
    answered_by: str = ""
    answer_reason: str = ""
    answered_at: datetime | None = None
    until: datetime | None = None


class AccessPage(BaseModel):
    requests: list[AccessShown]
    next: int | None = None


class SettingShown(BaseModel):
    """One setting. value: as text; empty: unset. origin: such as `LOG_LEVEL in the environment`."""

    name: str
    value: str
    origin: str
    effect: str


class SettingPage(BaseModel):
    settings: list[SettingShown]
