"""The requests of one person to watch or export one session, and their answers: commands and events.

    lucid.access.<session>.<key>     key: 8 bytes of H("lucid v1 access\\0" ‖ JCS([requester, look])), hex

1. Each subject is one log: of one person, one kind of look, one session. Its requests are numbered from 1.
2. `at_us` is time of the audit chain, which never goes back: a clock that is set back prolongs nothing.
3. An id, `<session>.<key>.<number>`, names the request that an approver has read, and no later one.
4. Bodies are JCS. They outlive the session: they hold its name, subjects of tokens, and reasons.
"""

import re
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from schemas.buffers import Bytes
from schemas.errors import Misuse, Rejected
from schemas.events.audit import Text, Who
from schemas.format.digest import h
from schemas.format.jcs import jcs
from schemas.subjects import session_id
from schemas.types import Count, Frozen, Label, TimeUs

Look = Literal["watch", "export"]
"""Watch: the bytes of a recording are shown. Export: a copy leaves, to be verified or watched elsewhere."""
LOOKS: tuple[Look, ...] = get_args(Look)
KEY_CHARS = 16
_ID = re.compile(rf"([A-Za-z0-9_-]{{1,100}})\.([0-9a-f]{{{KEY_CHARS}}})\.([1-9][0-9]{{0,8}})")
Reason = Annotated[str, StringConstraints(min_length=1, max_length=500)]


def access_key(requester: str, look: str) -> str:
    """Return the last token of the subject."""
    return h(b"lucid v1 access\0" + jcs([requester, look])).hex()[:KEY_CHARS]


def request_id(session: str, key: str, number: int) -> str:
    return f"{session}.{key}.{number}"


def parse_request_id(text: str) -> tuple[str, str, int]:
    """Return session, key and number. Raises Misuse (access.id)."""
    match = _ID.fullmatch(text)
    if match is None:
        raise Misuse(
            f"{text[:120]!r} is no id of a request (such as demo-01.0a1b2c3d4e5f6071.1)",
            code="access.id",
            hint="lucid access list",
        )
    return session_id(match[1]), match[2], int(match[3])


class AccessCommand(BaseModel):
    """The members of every command about access. `at_us`: time of the audit chain."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    who: Who
    at_us: TimeUs
    cause: Label


class RequestAccess(AccessCommand):
    """Ask that a second person allows a look. ends_us: an answer after that counts for nothing."""

    session: str
    look: Look
    reason: Reason
    ends_us: TimeUs


class AnswerAccess(AccessCommand):
    """Approve or refuse the request of this number; refusing an approved one ends it at once."""

    number: Count
    approve: bool
    reason: Text = ""
    until_us: TimeUs
    """End of the grant."""


class AccessEvent(Frozen):
    """The members of every event."""

    version: Literal[1] = 1
    number: Annotated[int, Field(ge=1, lt=2**53)]
    at_us: TimeUs
    who: Who
    """The requester of a request, the approver of an answer."""
    cause: Label
    reason: Text = ""


class AccessRequested(AccessEvent):
    type: Literal["AccessRequested"] = "AccessRequested"
    session: str
    look: Look
    ends_us: TimeUs


class AccessApproved(AccessEvent):
    type: Literal["AccessApproved"] = "AccessApproved"
    until_us: TimeUs


class AccessRefused(AccessEvent):
    """The request was refused, or the grant ended early."""

    type: Literal["AccessRefused"] = "AccessRefused"


Event = Annotated[AccessRequested | AccessApproved | AccessRefused, Field(discriminator="type")]
EVENT: TypeAdapter[Event] = TypeAdapter(Event)


def read_access_event(data: Bytes) -> Event | None:
    """Return the event; None: its type is unknown to this version. Raises Rejected (event.malformed)."""
    try:
        return EVENT.validate_json(data)
    except ValidationError as error:
        if error.errors()[0]["type"] == "union_tag_invalid":
            return None
        raise Rejected(
            f"not an event of access: {error.errors()[0]['msg']}", code="event.malformed"
        ) from None
