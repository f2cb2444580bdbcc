"""The bodies of a session's event log. The log is the history; the state is a fold over it.

1. Bodies are stored as JCS (RFC 8785) without null members: the history in an evidence copy is the stored
   bytes.
2. `cause` is the id of the command, or the id of the event that a reaction follows. A retried append searches
   for it.
3. `at_us` comes with the command: `decide` and `evolve` read no clock.
4. The log outlives the session's key, so it holds personal data only as blobs that this key seals
   (handlers/crypto/details.py). All other members are codes, pseudonyms and numbers.
5. A member that came later is optional, and absent while it is unset: events of earlier versions keep their
   bytes.
"""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from schemas.format.jcs import jcs
from schemas.types import (
    B64,
    CodecNumber,
    Count,
    ForcedEnd,
    Frozen,
    Hex16,
    Hex32,
    Hex64,
    Hex1216,
    Label,
    TimeUs,
)

SEALED_MOST = 17_000
"""Bytes of one sealed blob: a line of the history with two of them stays below 65,536 bytes."""
DAY_US = 86_400_000_000

SealedBlob = Annotated[B64, Field(max_length=SEALED_MOST)]


class State:
    """The states of a session. handlers.lifecycle.rules.TABLE holds the transitions."""

    CREATED = "CREATED"
    STARTING = "STARTING"
    ACTIVE = "ACTIVE"
    PAUSING = "PAUSING"
    PAUSED = "PAUSED"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"
    ERROR = "ERROR"
    CLEANUP = "CLEANUP"
    DESTROYED = "DESTROYED"


class SessionSettings(Frozen):
    """The settings that decide bytes of evidence, frozen when the session is created."""

    suite: Literal[1, 2] = 1
    codec: CodecNumber = 1
    level: Annotated[int, Field(ge=0, le=22)] = 3
    chunk_bytes: Annotated[int, Field(ge=1 << 18, le=16 << 20)] = 10 << 20
    chunk_max_seconds: Annotated[int, Field(ge=1, le=86_400)] = 60
    threshold: Annotated[int, Field(ge=0, le=16 << 20)] = 1024
    """Chunks of fewer plain bytes are stored raw."""


class SessionPolicy(Frozen):
    """The platform's rules for one session. An absent member sets no rule."""

    retention_days: Annotated[int, Field(ge=1, le=36_500)] | None = None
    """Days from the seal until the session is destroyed; nobody may destroy it earlier.

    Of a session that was never started: days from its creation, and a person may destroy it at once.
    """
    max_bytes: Annotated[int, Field(ge=1, lt=2**53)] | None = None
    """A recording with more plain bytes is stopped."""


class CaptureSettings(Frozen):
    """The picture that a recorder of ours captures for the session."""

    frame_rate: Annotated[int, Field(ge=1, le=120)] = 30
    width: Annotated[int, Field(ge=320, le=7680)] = 1920
    height: Annotated[int, Field(ge=240, le=4320)] = 1080
    quality: Literal["low", "medium", "high", "ultra"] = "high"
    bitrate: Annotated[int, Field(ge=64, le=1_000_000)] | None = None
    """The most kbit/s; absent: as many as the quality takes."""
    cursor: bool = True
    """Whether the mouse pointer is in the picture."""


class LifecycleEvent(Frozen):
    """The members of every event of the log."""

    version: Literal[1] = 1
    session: str
    at_us: TimeUs
    who: Label
    cause: Label


class Created(LifecycleEvent):
    type: Literal["Created"] = "Created"
    uid: Hex16
    host: str
    host_key: Hex32
    counter: Count
    prev_genesis: Hex32
    settings: SessionSettings
    request: Hex64
    """The host's signature over the request to create: over none of the members below."""
    dek_id: Hex16 | None = None
    """The data key, if it was made before the session was created: it seals `details` and `secret`."""
    details: SealedBlob | None = None
    """The personal fields, as revision 1."""
    secret: SealedBlob | None = None
    """The RDP password. No query returns it."""
    policy: SessionPolicy | None = None
    capture: CaptureSettings | None = None
    upload: Literal[True] | None = None
    """The platform's own upload host writes the recording."""


class Transition(LifecycleEvent):
    """The members of every event that moves the state."""

    trigger: Label
    from_state: Label
    to_state: Label
    reason: Label = "none"


class Transitioned(Transition):
    """A transition that carries only its reason."""

    type: Literal["Transitioned"] = "Transitioned"


class StartCompleted(Transition):
    """START_COMPLETE: the data key exists, and the host may seal to `intake`."""

    type: Literal["StartCompleted"] = "StartCompleted"
    dek_id: Hex16
    intake: Hex1216


class Recovered(Transition):
    """RECOVER and its new run in one event: a crash cannot separate them."""

    type: Literal["Recovered"] = "Recovered"
    run: Count
    chunks: Count
    """Chunks recorded so far: those of them that are missing are driven again under `run`."""


class DestroyOrdered(Transition):
    """CLEANUP, or DESTROY of a session that never started.

    approver: `none`. A name in an older event is the word of its caller.
    """

    type: Literal["DestroyOrdered"] = "DestroyOrdered"
    approver: Label
    backups_until_us: TimeUs


class EndRequested(LifecycleEvent):
    """The platform ends the recording itself: it sends `record` a fragment of kind 8."""

    type: Literal["EndRequested"] = "EndRequested"
    end: ForcedEnd
    reason: Label


class RunAllotted(LifecycleEvent):
    """A new run for replay, without a change of state. A run is never used twice."""

    type: Literal["RunAllotted"] = "RunAllotted"
    run: Count
    chunks: Count
    """As in Recovered."""
    reason: Label


class LossAccepted(LifecycleEvent):
    """The loss of a chunk that cannot be made: the manifest holds a gap for it."""

    type: Literal["LossAccepted"] = "LossAccepted"
    index: Count
    reason: Label


class SourceReleased(LifecycleEvent):
    """The first chunks of a running session were read back from the store: their source may be purged."""

    type: Literal["SourceReleased"] = "SourceReleased"
    chunks: Count
    """How many chunks, lost ones included. None of them is made again."""
    up_to: Count
    """Fragments up to this stream sequence may be purged, except those in the checkpoint of `record`."""


class HoldChanged(LifecycleEvent):
    """A legal hold was placed or lifted. Under a legal hold nothing is destroyed."""

    type: Literal["HoldChanged"] = "HoldChanged"
    held: bool
    reason: Label


class DetailsChanged(LifecycleEvent):
    """The personal fields have a new content. Earlier revisions stay in the log, sealed by the same key."""

    type: Literal["DetailsChanged"] = "DetailsChanged"
    revision: Count
    dek_id: Hex16
    details: SealedBlob
    secret: SealedBlob | None = None
    """A new RDP password; absent: the former one stays."""


class PipelinePaused(LifecycleEvent):
    """The pipeline leaves the session's fragments in the stream. Its recording goes on."""

    type: Literal["PipelinePaused"] = "PipelinePaused"
    reason: Label


class PipelineResumed(LifecycleEvent):
    """The pipeline takes the session's fragments again, beginning with those that waited."""

    type: Literal["PipelineResumed"] = "PipelineResumed"
    reason: Label


class SealStarted(LifecycleEvent):
    """The input of the manifest is fixed."""

    type: Literal["SealStarted"] = "SealStarted"
    seal_no: Count
    sealed_us: TimeUs
    signer: Hex32
    """Fingerprint: H(public key)."""
    n: Count
    """Data chunks, lost ones included."""
    stored: Count
    """The last stream sequence that counts on the session's `stored` subject."""


class Sealed(LifecycleEvent):
    type: Literal["Sealed"] = "Sealed"
    seal_no: Count
    manifest: Hex32
    """H of the envelope."""
    root: Hex32
    chunks: Count
    """Listed chunks, index chunks included."""
    plain: Count
    sealed: Count


class Shredded(LifecycleEvent):
    """The session's key is erased: no chunk under `dek_id` can ever be opened again."""

    type: Literal["Shredded"] = "Shredded"
    tombstone: Hex32
    """H of the tombstone's envelope."""


Event = Annotated[
    Created
    | Transitioned
    | StartCompleted
    | Recovered
    | DestroyOrdered
    | EndRequested
    | RunAllotted
    | LossAccepted
    | SourceReleased
    | HoldChanged
    | DetailsChanged
    | PipelinePaused
    | PipelineResumed
    | SealStarted
    | Sealed
    | Shredded,
    Field(discriminator="type"),
]
EVENT: TypeAdapter[Event] = TypeAdapter(Event)


def stored_bytes(event: LifecycleEvent) -> bytes:
    """Return the bytes of an event in the log: JCS, without unset members."""
    return jcs(event.model_dump(mode="json", exclude_none=True))
