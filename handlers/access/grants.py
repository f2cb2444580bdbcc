"""Four eyes: decides looks at a recording that a second person must allow. Pure.

    none ── request ──▶ ASKED ── approve ──▶ GRANTED ── time, or refuse ──▶ ENDED
                          └── refuse, or time ──▶ REFUSED, ENDED        (then: request again)

1. `initial`, `evolve` and `decide` are the state machine of one person's requests for one kind of look at one
   session; the log is schemas/events/access.py.
2. The requester never approves, under no token: subjects are compared without case. The permission of the
   approver was checked before.
3. Every time is time of the audit chain. A grant ends by it, without an event.
"""

from dataclasses import dataclass, replace

from schemas.errors import Denied, NotFound, RefusedByState
from schemas.events.access import (
    AccessApproved,
    AccessCommand,
    AccessRefused,
    AccessRequested,
    AnswerAccess,
    Event,
    Look,
    RequestAccess,
    access_key,
    request_id,
)


class Stage:
    """The stages of the newest request."""

    NONE = "NONE"
    ASKED = "ASKED"
    GRANTED = "GRANTED"
    REFUSED = "REFUSED"
    ENDED = "ENDED"


@dataclass(frozen=True, slots=True)
class Access:
    """The fold of one log. Times of the newest request; `answered_by` is empty until it was answered."""

    session: str
    key: str
    number: int = 0
    requester: str = ""
    look: Look = "watch"
    reason: str = ""
    asked_us: int = 0
    ends_us: int = 0
    approved: bool = False
    answered_by: str = ""
    answer_reason: str = ""
    answered_us: int = 0
    until_us: int = 0
    causes: frozenset[str] = frozenset()
    last_seq: int = 0

    @property
    def id(self) -> str:
        return request_id(self.session, self.key, self.number)

    def stage(self, now_us: int) -> str:
        """The stage at a time of the audit chain."""
        if self.number == 0:
            return Stage.NONE
        if not self.answered_by:
            return Stage.ASKED if now_us < self.ends_us else Stage.ENDED
        if not self.approved:
            return Stage.REFUSED
        return Stage.GRANTED if now_us < self.until_us else Stage.ENDED


def initial(session: str, key: str) -> Access:
    """The fold of an empty log."""
    return Access(session, key)


def evolve(access: Access, event: Event | None, seq: int) -> Access:
    """The fold after one event. None, and an answer to another request than the newest, change nothing."""
    if event is None:
        return replace(access, last_seq=seq)
    access = replace(access, last_seq=seq, causes=access.causes | {event.cause})
    if isinstance(event, AccessRequested):
        return replace(
            initial(access.session, access.key), number=event.number, requester=event.who, look=event.look,
            reason=event.reason, asked_us=event.at_us, ends_us=event.ends_us,
            causes=access.causes, last_seq=seq,
        )  # fmt: skip
    if event.number != access.number:
        return access
    until_us = event.until_us if isinstance(event, AccessApproved) else 0
    return replace(
        access, approved=isinstance(event, AccessApproved), answered_by=event.who,
        answer_reason=event.reason, answered_us=event.at_us, until_us=until_us,
    )  # fmt: skip


def decide(access: Access, command: AccessCommand) -> list[Event]:
    """Return the events of a command: one, or none if the log has its `cause`.

    Raises RefusedByState (access.waiting, access.granted, access.over), Denied (access.self), NotFound
    (access.absent).
    """
    if command.cause in access.causes:
        return []
    if isinstance(command, RequestAccess):
        return [_request(access, command)]
    assert isinstance(command, AnswerAccess)
    return [_answer(access, command)]


def check_grant(access: Access, now_us: int) -> None:
    """Return if the look is allowed now. Raises Denied (access.needed, access.unanswered, access.ended)."""
    stage = access.stage(now_us)
    if stage == Stage.GRANTED:
        return
    ask = f"lucid access request {access.session} --look {access.look} --reason TEXT"
    what = f"{access.look} of session {access.session}"
    if stage == Stage.ASKED:
        raise Denied(
            f"{what} needs a second person, and request {access.id} is not answered yet",
            code="access.unanswered",
            hint=f"a second person: lucid access approve {access.id}",
        )
    if stage == Stage.NONE:
        raise Denied(f"{what} needs the approval of a second person", code="access.needed", hint=ask)
    how = "was refused" if stage == Stage.REFUSED else "has ended"
    raise Denied(f"{what} needs a second person; request {access.id} {how}", code="access.ended", hint=ask)


def same_person(one: str, other: str) -> bool:
    """Whether two subjects of tokens are one person's."""
    return one.strip().casefold() == other.strip().casefold()


def _request(access: Access, command: RequestAccess) -> Event:
    assert access.key == access_key(command.who, command.look)
    stage = access.stage(command.at_us)
    if stage == Stage.ASKED:
        raise RefusedByState(
            f"request {access.id} is not answered yet (allowed: one at a time)",
            code="access.waiting",
            hint="wait for the answer, or let a second person refuse it",
        )
    if stage == Stage.GRANTED:
        raise RefusedByState(
            f"request {access.id} is granted already (allowed: one at a time)", code="access.granted"
        )
    return AccessRequested(
        number=access.number + 1, at_us=command.at_us, who=command.who, cause=command.cause,
        reason=command.reason, session=access.session, look=command.look, ends_us=command.ends_us,
    )  # fmt: skip


def _answer(access: Access, command: AnswerAccess) -> Event:
    if access.number == 0 or command.number > access.number:
        named = request_id(access.session, access.key, command.number)
        raise NotFound(f"there is no request {named}", code="access.absent", hint="lucid access list")
    stage = access.stage(command.at_us)
    if same_person(access.requester, command.who) and (command.approve or stage != Stage.ASKED):
        raise Denied(
            f"request {access.id} is your own: a second person approves it",
            code="access.self",
            hint="ask somebody with the role ADMIN",
        )
    allowed = (Stage.ASKED,) if command.approve else (Stage.ASKED, Stage.GRANTED)
    if command.number < access.number or stage not in allowed:
        is_now = "replaced by a newer one" if command.number < access.number else stage
        raise RefusedByState(
            f"request {request_id(access.session, access.key, command.number)} is {is_now} "
            f"(allowed: {', '.join(allowed)})",
            code="access.over",
            hint="lucid access list",
        )
    if command.approve:
        return AccessApproved(
            number=command.number, at_us=command.at_us, who=command.who, cause=command.cause,
            reason=command.reason, until_us=command.until_us,
        )  # fmt: skip
    return AccessRefused(
        number=command.number, at_us=command.at_us, who=command.who, cause=command.cause,
        reason=command.reason,
    )  # fmt: skip
