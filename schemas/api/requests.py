"""The bodies that callers of the API send.

1. An unknown member is refused: a misspelt one must not be ignored.
2. A setting without an effect yet is refused, never accepted in silence.
"""

import re
from typing import Annotated, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    WithJsonSchema,
)

from schemas.events.details import TAGS_MOST, Description, HostName, Line, Priority, Tag
from schemas.format.chunk_header import CodecName, SuiteName

SessionName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,100}$")]
WIDTH = "(3[2-9][0-9]|[4-9][0-9]{2}|[1-6][0-9]{3}|7[0-5][0-9]{2}|76[0-7][0-9]|7680)"
HEIGHT = "(2[4-9][0-9]|[3-9][0-9]{2}|[1-3][0-9]{3}|4[0-2][0-9]{2}|43[01][0-9]|4320)"
Resolution = Annotated[str, StringConstraints(pattern=f"^{WIDTH}x{HEIGHT}$")]
"""320x240 to 7680x4320."""


StateName = Literal[
    "CREATED",
    "STARTING",
    "ACTIVE",
    "PAUSING",
    "PAUSED",
    "STOPPING",
    "STOPPED",
    "ERROR",
    "CLEANUP",
    "DESTROYED",
]
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


def _only_rfc_3339(given: object) -> object:
    """A number or a date alone would be taken for a time, too."""
    if not isinstance(given, str) or not _RFC_3339.fullmatch(given):
        raise ValueError("a time is RFC 3339, such as 2026-03-04T09:12:44Z")
    return given


Time = Annotated[
    AwareDatetime,
    BeforeValidator(_only_rfc_3339),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Unsupported = Annotated[bool, Field(json_schema_extra={"const": False})]
"""A setting without an effect yet: true is refused with a sentence of its own."""


class Request(BaseModel):
    """The members of every request body: none."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class RdpConfig(Request):
    """The desktop that is recorded. `password` is write-only: no answer, log or list ever holds it."""

    host: HostName = ""
    port: Annotated[int, Field(ge=1, le=65_535)] = 3389
    username: Line = ""
    domain: Line = ""
    use_tls: bool = True
    ignore_cert: bool = False
    password: SecretStr | None = Field(default=None, min_length=1, max_length=256)


class RecordingConfig(Request):
    """How the desktop is captured and its chunks are made. Its `compression` wins over storage_config's."""

    frame_rate: Annotated[int, Field(ge=1, le=120)] = 30
    resolution: Resolution = "1920x1080"
    quality: Literal["low", "medium", "high", "ultra"] = "high"
    compression: CodecName | None = None
    bitrate: Annotated[int, Field(ge=100, le=100_000)] | None = None
    """kbit/s; without it the quality decides."""
    audio: Unsupported = False
    cursor: bool = True


class StorageConfig(Request):
    """How long and how large. `backup` and `archive` have no effect yet: true is refused."""

    retention_days: Annotated[int, Field(ge=1, le=36_500)] | None = None
    max_size_gb: Annotated[float, Field(gt=0, le=100_000)] | None = None
    encryption: SuiteName | None = None
    compression: CodecName | None = None
    backup: Unsupported = False
    archive: Unsupported = False


class Metadata(Request):
    """The members by which people find a session."""

    project: Line = ""
    environment: Line = ""
    tags: Annotated[list[Tag], Field(max_length=TAGS_MOST)] = []
    description: Description = ""
    owner: Line = ""
    priority: Priority = "normal"


class NewSession(Request):
    """The members of every new session."""

    name: Line = ""
    rdp_config: RdpConfig = RdpConfig()
    recording_config: RecordingConfig = RecordingConfig()
    storage_config: StorageConfig = StorageConfig()
    metadata: Metadata = Metadata()


class SessionCreate(NewSession):
    """A new session. `id`: without it one is made."""

    id: SessionName | None = None


class SessionUpdate(Request):
    """The members of a session that may change. A member that is left out stays, also inside."""

    name: Line | None = None
    rdp_config: RdpConfig | None = None
    metadata: Metadata | None = None


class RecordingStart(NewSession):
    """A recording of this host's desktop. `session_id`: without it one is made. seconds: its longest time."""

    session_id: SessionName | None = None
    seconds: Annotated[float, Field(gt=0, le=366 * 86_400)] = 366 * 86_400


class RecordingQuery(Request):
    """A page of a host's recordings. after: `next` of the page before."""

    after: Annotated[int, Field(ge=0, lt=2**53)] = 0
    limit: Annotated[int, Field(ge=1, le=500)] = 100


class FilterQuery(Request):
    """Which sessions are wanted: those that fit every condition. Times are RFC 3339."""

    status: Annotated[list[StateName], Field(max_length=10)] = []
    host: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{0,64}$")] = ""
    text: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{0,100}$")] = ""
    """Part of the session's id."""
    created_from: Time | None = None
    created_before: Time | None = None
    sealed: Annotated[bool | None, WithJsonSchema({"type": "boolean"})] = None
    owner: Line = ""
    tag: Annotated[list[Tag], Field(max_length=TAGS_MOST)] = []
    """All of them."""
    project: Annotated[Line, Field(max_length=100)] = ""
    environment: Annotated[Line, Field(max_length=100)] = ""
    name: Line = ""
    """Words of the name, or beginnings of at least three letters."""


class ListQuery(FilterQuery):
    """A page of the sessions that fit."""

    sort: Literal["created", "moved", "started", "size", "duration"] = "created"
    order: Literal["asc", "desc"] = "desc"
    cursor: Annotated[str, StringConstraints(max_length=100)] = ""
    """`next` of the page before."""
    limit: Annotated[int, Field(ge=1, le=500)] = 100


class AuditQuery(Request):
    """Which entries of the audit chain are wanted: those that fit every condition."""

    session: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{0,100}$")] = ""
    who: Line = ""
    action: Annotated[str, StringConstraints(pattern=r"^[a-z_]{0,100}$")] = ""
    outcome: Literal["", "ok", "refused", "failed"] = ""
    since: Time | None = None
    until: Time | None = None
    order: Literal["asc", "desc"] = "desc"
    after: Annotated[int, Field(ge=0, lt=2**53)] = 0
    """`next` of the page before."""
    limit: Annotated[int, Field(ge=1, le=500)] = 100


class AccessAsked(Request):
    """The wish to watch or export a session, for a second person to answer."""

    session_id: SessionName
    look: Literal["watch", "export"] = "watch"
    reason: Annotated[str, StringConstraints(min_length=1, max_length=200)]


class AccessQuery(Request):
    """Which requests are wanted."""

    session_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{0,100}$")] = ""
    stage: Annotated[str, StringConstraints(pattern=r"^[a-z]{0,20}$")] = ""
    after: Annotated[int, Field(ge=0, lt=2**53)] = 0
    limit: Annotated[int, Field(ge=1, le=200)] = 100


class Answered(Request):
    """The answer of a second person."""

    reason: Annotated[str, StringConstraints(max_length=200)] = ""


class Reasoned(Request):
    """Why a command is given: a short code such as `maintenance`."""

    reason: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,100}$")] = "operator"


class RecoverAsked(Reasoned):
    """A session in ERROR is to work again. accept_loss: without the chunks that cannot be made."""

    accept_loss: bool = False
