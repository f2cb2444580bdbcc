"""The bodies of the commands to a session.

1. `at_us` is the platform's clock; the command service sets it: `decide` reads no clock.
2. `cause` is the command's own id, or the id of the event that a reaction follows. A repeated command carries
   the same id and changes nothing.
3. A command with an unknown member is refused: a misspelt member must not be ignored.
"""

from typing import Annotated, ClassVar, Literal

import rfc8785
from pydantic import BaseModel, ConfigDict, Field

from schemas.events.session import CaptureSettings, SealedBlob, SessionPolicy, SessionSettings
from schemas.format.fragment import session_uid
from schemas.types import Count, ForcedEnd, Hex16, Hex32, Hex64, Hex1216, Label, TimeUs

CREATE_PREFIX = b"lucid v1 create\0"


class Trigger:
    """The triggers that move a session between states (handlers.lifecycle.rules.TABLE)."""

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
    """The members of every command."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    session: str
    at_us: TimeUs
    who: Label
    cause: Label


class Create(Command):
    """A host asks for a session. Its evidence key signs every field that the evidence depends on."""

    host: str
    host_key: Hex32
    counter: Annotated[int, Field(ge=1, lt=2**53)]
    prev_genesis: Hex32
    settings: SessionSettings = SessionSettings()
    request: Hex64
    """Ed25519(CREATE_PREFIX ‖ `signed_part`)."""
    policy: SessionPolicy | None = None
    capture: CaptureSettings | None = None

    @property
    def uid(self) -> bytes:
        return session_uid(self.host_key, self.counter)

    @property
    def signed_part(self) -> bytes:
        return create_request(
            self.session, self.host, self.host_key, self.counter, self.prev_genesis, self.settings
        )


class Open(Create):
    """The platform creates a session that its own upload host writes. Its data key was made before.

    A repeated one has the same `cause` and the same content.
    """

    dek_id: Hex16
    details: SealedBlob | None = None
    secret: SealedBlob | None = None
    upload: Literal[True] = True


def create_request(
    session: str, host: str, host_key: bytes, counter: int, prev_genesis: bytes, settings: SessionSettings
) -> bytes:
    """Return the bytes that a host signs, after CREATE_PREFIX, to ask for a session."""
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
    """A command that stands for one trigger of the table."""

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
    """Chunks recorded so far. A chunk that is recorded during the decision belongs to the previous run."""


class Cleanup(Move):
    """Destroy a session that was started: first its key, then all data that the key opens."""

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
    """The platform ends a recording that its host does not end."""

    end: ForcedEnd
    reason: Label = "none"


class AllotRun(Command):
    """Start a new run that drives missing chunks again, without a change of state."""

    chunks: Count
    """As in Recover."""
    reason: Label = "none"


class AcceptLoss(Command):
    """Accept the loss of one chunk that cannot be made."""

    index: Count
    reason: Label = "none"


class ReleaseSource(Command):
    """Release the source of the first chunks of a running session. Members as in SourceReleased."""

    chunks: Count
    up_to: Count


class ChangeHold(Command):
    """Place or lift a legal hold."""

    held: bool
    reason: Label = "none"


class ChangeDetails(Command):
    """Replace the personal fields. The revision is one more than that on which the caller decided."""

    revision: Annotated[int, Field(ge=1, lt=2**53)]
    dek_id: Hex16
    details: SealedBlob
    secret: SealedBlob | None = None


class PausePipeline(Command):
    """Leave the session's fragments in the stream until the pipeline is resumed."""

    reason: Label = "none"


class ResumePipeline(Command):
    """Take the session's fragments again, beginning with those that waited."""

    reason: Label = "none"


class BeginSeal(Command):
    """Fix the input of the manifest. The log assigns the seal's number. Members as in SealStarted."""

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
    """Revoke a signer: none of its signatures count any more. Not a command to a session."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Label
    since_us: Annotated[TimeUs, Field(gt=0)]
    """When the misuse could begin. Signatures from before that time do not count either."""
    cause: Label
    who: Label = "none"


class RecordShredding(Command):
    """The key is erased and the tombstone is durable. tombstone: H of its envelope."""

    tombstone: Hex32
