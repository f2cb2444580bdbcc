"""Describes the request of each command for docs/asyncapi.json: its effect, and the schema of its members.

1. Control checks requests by the same models. The table is total: a test compares it with the commands.
2. Every request may have the members of MORE beside its own.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, Field, ValidationError

from schemas.errors import Misuse
from schemas.events import commands
from schemas.types import LABEL_PATTERN
from streams.control.access_commands import AccessAnswer, AccessListed, AccessWish
from streams.control.opening import CreateAsked, OpenAsked, UpdateAsked
from streams.control.running import RunningAsked
from streams.control.where import WhereAsked
from streams.event_store.audit_pages import AuditQuery
from streams.projections.session_list import Asked, PageAsked

REFERENCE = "#/components/schemas/{model}"
FILLED_IN = ("at_us", "who", "cause")
"""Members that a request may leave out."""


MORE = {
    "token": {"type": "string", "description": "The caller's token (JWT): a request without one is refused."},
    "audit_reason": {"type": "string", "description": "The caller's reason, for the audit chain."},
}
"""Members of every request."""


class OfSession(BaseModel):
    """The request names a session."""

    session: str


class ShowAsked(OfSession):
    """One session is shown."""

    waiting: bool = Field(default=True, description="Count the fragments that wait, too.")


class Nothing(BaseModel):
    """The request has no members of its own."""


class RoomAsked(BaseModel):
    """A host asks for its quota."""

    sending: int = 0
    """Bytes under way."""
    session: str = Field(default="", description="The session of the host; absent: the least quota of all.")


class RotateAsked(BaseModel):
    """A rotation goes on behind a session."""

    after: str = Field(default="", description="Where the last call ended; empty: the beginning.")


class RecoverAsked(commands.Command):
    """A session in ERROR works again."""

    accept_loss: bool = False
    reason: str = ""


class DestroyAsked(commands.Command):
    """A session is to be destroyed. backups_until_us: the tombstone tells until when backups are kept."""

    reason: str = ""
    backups_until_us: int = 0


class ScrubAsked(BaseModel):
    """A check is to begin now."""

    session: str = Field(default="", max_length=100, description="Only this one; empty: a whole pass.")


class ScrubAcknowledged(BaseModel):
    """Alarms are acknowledged."""

    session: str = Field(default="", max_length=100, description="Of this session; empty: of streams.")


class AuditHeadAsked(BaseModel):
    """The end of the audit chain is to be signed."""

    accept_break: bool = Field(default=False, description="The chain need not hold the last signed entry.")


class Request(NamedTuple):
    """One command. model: the members of its request."""

    effect: str
    model: type[BaseModel]


REQUESTS: dict[str, Request] = {
    "create": Request("A host creates a session; the host's evidence key signs the request.", CreateAsked),
    "open": Request("Create a session that the platform writes itself.", OpenAsked),
    "update": Request("Replace the personal fields of a session.", UpdateAsked),
    "details": Request("The personal fields of a session, opened.", OfSession),
    "start": Request("START; the answer waits for START_COMPLETE.", commands.Start),
    "stop": Request("STOP: the recording ends in order.", commands.Stop),
    "abort": Request("The recording ends without its host.", commands.RequestEnd),
    "pause": Request("PAUSE: the recording makes no new fragments.", commands.Pause),
    "resume": Request("RESUME: the recording goes on.", commands.Resume),
    "pause_pipeline": Request("Fragments stay in the stream.", commands.PausePipeline),
    "resume_pipeline": Request("Fragments that waited are taken.", commands.ResumePipeline),
    "error": Request("ERROR: the session is set aside.", commands.Error),
    "recover": Request("RECOVER: a session in ERROR works again.", RecoverAsked),
    "redrive": Request("Missing chunks are made again.", OfSession),
    "hold": Request("A legal hold begins or ends.", commands.ChangeHold),
    "destroy": Request("Destroy for good; the answer waits until the session is shredded.", DestroyAsked),
    "show": Request("One session, from its log.", ShowAsked),
    "where": Request("Where each chunk of a session is.", WhereAsked),
    "running": Request("The sessions that are not finished, those in need first.", RunningAsked),
    "scrub": Request("The state of the scrub, and its findings.", Nothing),
    "scrub_now": Request("The scrub checks one session next, or begins a pass.", ScrubAsked),
    "scrub_acknowledge": Request("The alarms of a session are known to a person.", ScrubAcknowledged),
    "ping": Request("The service answers.", Nothing),
    "list": Request("One page of sessions.", PageAsked),
    "totals": Request("Sums over all sessions that fit.", Asked),
    "room": Request("How many bytes a host may send.", RoomAsked),
    "rotate": Request("Session keys are wrapped under a new master key.", RotateAsked),
    "signers": Request("The signers of this installation.", Nothing),
    "rotate_signer": Request("A new signer seals from now on.", Nothing),
    "revoke_signer": Request("A signer is trusted no longer.", commands.RevokeSigner),
    "audit": Request("One page of the audit chain.", AuditQuery),
    "audit_head": Request("The end of the audit chain is signed.", AuditHeadAsked),
    "access_request": Request("A second person is asked to allow a look.", AccessWish),
    "access_approve": Request("The request of another person is approved.", AccessAnswer),
    "access_refuse": Request("A request is refused, or taken back.", AccessAnswer),
    "access_list": Request("One page of requests for looks.", AccessListed),
}


def malformed(name: str, error: ValidationError) -> Misuse:
    """The refusal of a request that its model does not take (command.form)."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "it"
    is_label = first.get("ctx", {}).get("pattern") == LABEL_PATTERN
    words = "1 to 100 letters, digits or _.- and no spaces" if is_label else first["msg"]
    return Misuse(f"{name}: {where}: {words}", code="command.form")


def schemas(names: Mapping[str, str]) -> dict[str, Any]:
    """The schemas of requests, by the name that `names` gives each command, and of all that they refer to."""
    found: dict[str, Any] = {}
    for command, name in names.items():
        schema = REQUESTS[command].model.model_json_schema(ref_template=REFERENCE)
        schema["properties"] = {**schema.get("properties", {}), **MORE}
        found.update(schema.pop("$defs", {}))
        required = [member for member in schema.get("required", ()) if member not in FILLED_IN]
        found[name] = {**schema, "required": required} if required else _without(schema, "required")
    return found


def _without(schema: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != name}
