"""Owns the bodies of commands to a session: what is asked for, by whom, when, and under which id.

1. `at_us` is the clock of whoever asks: the pure side reads none.
2. `cause` is the command's own id (for a reaction: the causing event's). A repeated command carries the same
   one and changes nothing.
3. A command that says more than it should is refused: a misspelt member must not be ignored.
"""

from typing import Annotated, ClassVar

import rfc8785
from pydantic import BaseModel, ConfigDict, Field

from schemas.events.session import SessionSettings
from schemas.types import Count, ForcedEnd, Hex16, Hex32, Hex64, Hex1216, Label, TimeUs

CREATE_PREFIX = b"lucid v1 create\0"


class Trigger:
    """What moves a session from state to state (handlers.lifecycle.rules.TABLE)."""

    START = "START"
    START_COMPLETE = "START_COMPLETE"
    PAUSE = "PAUSE"
    PAUSE_COMPLETE = "PAUSE_COMPLETE"
    RESUME = "RESUME"
    STOP = "STOP"
    STOP_COMPLETE = "STOP_COMPLETE"
    ERROR = "ERROR"
    RECOVER = "RECOVER"
    CLEANUP = "CLEANUP"
    CLEANUP_COMPLETE = "CLEANUP_COMPLETE"
    DESTROY = "DESTROY"


class Command(BaseModel):
    """What every command says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    session: str
    at_us: TimeUs
    who: Label
    cause: Label


class Create(Command):
    """A host asks for a session; its evidence key signs everything that the evidence will rest on."""

    host: str
    host_key: Hex32
    counter: Annotated[int, Field(ge=1, lt=2**53)]
    prev_genesis: Hex32
    settings: SessionSettings = SessionSettings()
    request: Hex64
    """Ed25519(CREATE_PREFIX ‖ `signed_part`)."""

    @property
    def signed_part(self) -> bytes:
        return create_request(
            self.session, self.host, self.host_key, self.counter, self.prev_genesis, self.settings
        )


def create_request(
    session: str, host: str, host_key: bytes, counter: int, prev_genesis: bytes, settings: SessionSettings
) -> bytes:
    """The bytes that a host signs, after CREATE_PREFIX, when it asks for a session."""
    asked: dict[str, str | int | dict[str, int]] = {
        "session": session,
        "host": host,
        "host_key": host_key.hex(),
        "counter": counter,
        "prev_genesis": prev_genesis.hex(),
        "settings": settings.model_dump(),
    }
    return rfc8785.dumps(asked)


class Move(Command):
    """A command that is one trigger of the table."""

    trigger: ClassVar[str]
    reason: Label = "none"


class Start(Move):
    trigger = Trigger.START


class StartComplete(Move):
    trigger = Trigger.START_COMPLETE
    dek_id: Hex16
    intake: Hex1216


class Pause(Move):
    trigger = Trigger.PAUSE


class PauseComplete(Move):
    trigger = Trigger.PAUSE_COMPLETE


class Resume(Move):
    trigger = Trigger.RESUME


class Stop(Move):
    trigger = Trigger.STOP


class StopComplete(Move):
    trigger = Trigger.STOP_COMPLETE


class Error(Move):
    trigger = Trigger.ERROR


class Recover(Move):
    trigger = Trigger.RECOVER
    chunks: Count
    """How many are recorded now. One that is recorded while this is decided belongs to the run before."""


class Cleanup(Move):
    """Destroy a session that was started: the fence, the keys, then everything that they opened."""

    trigger = Trigger.CLEANUP
    approver: Label = "none"
    backups_until_us: TimeUs = 0


class CleanupComplete(Move):
    trigger = Trigger.CLEANUP_COMPLETE


class Destroy(Move):
    """Destroy a session that was never started."""

    trigger = Trigger.DESTROY
    approver: Label = "none"
    backups_until_us: TimeUs = 0


class RequestEnd(Command):
    """The platform ends a recording whose host does not."""

    end: ForcedEnd
    reason: Label = "none"


class AllotRun(Command):
    """A new run, to drive missing chunks again without a change of state."""

    chunks: Count
    """As in Recover."""
    reason: Label = "none"


class AcceptLoss(Command):
    """Give up one chunk that cannot be made."""

    index: Count
    reason: Label = "none"


class ReleaseSource(Command):
    """Let go of what the first chunks of a session that still runs were made of."""

    chunks: Count
    up_to: Count


class ChangeHold(Command):
    """Place or lift a legal hold."""

    held: bool
    reason: Label = "none"


class BeginSeal(Command):
    """Fix what the manifest is made from; the seal's number is the log's to give."""

    sealed_us: TimeUs
    signer: Hex32
    n: Count
    stored: Count


class CompleteSeal(Command):
    """The manifest and its index chunks are durable."""

    seal_no: Count
    manifest: Hex32
    root: Hex32
    chunks: Count
    plain: Count
    sealed: Count


class RevokeSigner(BaseModel):
    """No session's command: let nothing count that a signer signed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Label
    since_us: Annotated[TimeUs, Field(gt=0)]
    """From when it could be misused; it counts for nothing before that either."""
    cause: Label


class RecordShredding(Command):
    """Fence, erased wraps and tombstone stand."""

    tombstone: Hex32
