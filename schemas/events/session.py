"""Owns the bodies of a session's event log. The log is the history; state is a fold over it.

1. Bodies are stored as JCS (RFC 8785): null nowhere, absent members left out, so that the history in an
   evidence copy is the stored bytes.
2. `cause` is the id of the command (for a reaction: of the causing event); a retried append looks for it.
3. `at_us` comes in with the command: the pure side reads no clock.
4. The log outlives the session's key, so nothing personal stands in it: codes, pseudonyms, numbers.
"""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from schemas.types import Count, ForcedEnd, Frozen, Hex16, Hex32, Hex64, Hex1216, Label, TimeUs


class State:
    """The states of a session; what leads from one to another is handlers.lifecycle.rules.TABLE."""

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
    """What decides bytes, frozen when the session is created."""

    suite: Literal[1, 2] = 1
    codec: Literal[0, 1, 2, 3, 4] = 1
    level: Annotated[int, Field(ge=0, le=22)] = 3
    chunk_bytes: Annotated[int, Field(ge=1 << 18, le=16 << 20)] = 10 << 20
    chunk_max_seconds: Annotated[int, Field(ge=1, le=86_400)] = 60
    threshold: Annotated[int, Field(ge=0, le=16 << 20)] = 1024
    """Chunks of fewer plain bytes are stored raw."""


class LifecycleEvent(Frozen):
    """What every event of the log says."""

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
    """The host's signature over the request to create."""


class Transition(LifecycleEvent):
    """What every event that moves the state says."""

    trigger: Label
    from_state: Label
    to_state: Label
    reason: Label = "none"


class Transitioned(Transition):
    """A transition that carries nothing but its reason."""

    type: Literal["Transitioned"] = "Transitioned"


class StartCompleted(Transition):
    """START_COMPLETE: the data key exists, and the host may seal to `intake`."""

    type: Literal["StartCompleted"] = "StartCompleted"
    dek_id: Hex16
    intake: Hex1216


class Recovered(Transition):
    """RECOVER: what is missing is driven again under `run`, in one event, so that no crash parts the two."""

    type: Literal["Recovered"] = "Recovered"
    run: Count
    chunks: Count
    """How many were recorded by then: those of them that are missing are driven again."""


class DestroyOrdered(Transition):
    """CLEANUP, or DESTROY of a session that never started: who answers for it goes into the tombstone."""

    type: Literal["DestroyOrdered"] = "DestroyOrdered"
    approver: Label
    backups_until_us: TimeUs


class EndRequested(LifecycleEvent):
    """The platform ends the recording itself: record is sent a kind 8 fragment."""

    type: Literal["EndRequested"] = "EndRequested"
    end: ForcedEnd
    reason: Label


class RunAllotted(LifecycleEvent):
    """A new run for replay, without a change of state; never used twice."""

    type: Literal["RunAllotted"] = "RunAllotted"
    run: Count
    chunks: Count
    """As in Recovered."""
    reason: Label


class LossAccepted(LifecycleEvent):
    """A chunk that cannot be made is given up: the manifest will hold a gap for it."""

    type: Literal["LossAccepted"] = "LossAccepted"
    index: Count
    reason: Label


class SourceReleased(LifecycleEvent):
    """The first chunks of a session that still runs were read back from the store: their source may go."""

    type: Literal["SourceReleased"] = "SourceReleased"
    chunks: Count
    """How many, lost ones included. None of them is ever made again."""
    up_to: Count
    """Stream sequence up to which fragments may go, but for those that record's checkpoint names."""


class HoldChanged(LifecycleEvent):
    """A legal hold was placed or lifted; while it stands nothing is destroyed."""

    type: Literal["HoldChanged"] = "HoldChanged"
    held: bool
    reason: Label


class SealStarted(LifecycleEvent):
    """Everything that the manifest is made from is fixed now."""

    type: Literal["SealStarted"] = "SealStarted"
    seal_no: Count
    sealed_us: TimeUs
    signer: Hex32
    """Fingerprint: H(public key)."""
    n: Count
    """Data chunks, lost ones included."""
    stored: Count
    """The last stream sequence on the session's `stored` subject that counts: what comes later does not."""


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
    """The fence stands and every wrap is erased; `dek_id` can never be opened again."""

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
    | SealStarted
    | Sealed
    | Shredded,
    Field(discriminator="type"),
]
EVENT: TypeAdapter[Event] = TypeAdapter(Event)
