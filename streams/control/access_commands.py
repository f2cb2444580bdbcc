"""Carries out the commands of four eyes: `access_request`, `access_approve`, `access_refuse`, `access_list`.

1. Each is in the audit chain before it is carried out, and takes its time from there.
2. Only the permission `approve` answers the requests of others. The requester may take the own one back.
"""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from handlers.access.grants import Access, same_person
from handlers.access.permissions import Reach, permit, reach
from schemas.access import Permission
from schemas.events.access import AnswerAccess, Look, Reason, RequestAccess, access_key, parse_request_id
from schemas.events.audit import Text
from streams.control.auditor import ASKED, CALLER, FILLED
from streams.event_store.access_log import PAGE_MOST, AccessLog, details
from streams.event_store.audit_log import Asked
from streams.event_store.audit_pages import chain_now_us
from streams.event_store.looks import AccessPolicy
from streams.event_store.session_log import SessionLog
from streams.scheduling.clock import Clock

Body = dict[str, Any]
KEYED, KEYED_CHARS = "idem-", 100
"""The cause of a request with an Idempotency-Key (streams/api/commands.py), and its longest text."""


class _Form(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class AccessWish(_Form):
    """The caller wishes to watch or export a session."""

    session: str
    look: Look = "watch"
    reason: Reason


class AccessAnswer(_Form):
    """The answer to a request, by its id."""

    request: str
    reason: Text = ""


class AccessListed(_Form):
    """Which requests are wanted."""

    session: str = ""
    stage: str = ""
    after: int = Field(default=0, ge=0, lt=2**53)
    limit: int = Field(default=PAGE_MOST, ge=1, le=PAGE_MOST)


@dataclass(frozen=True, slots=True)
class AccessCommands:
    """One for each process that answers commands."""

    access: AccessLog
    sessions: SessionLog
    policy: AccessPolicy
    clock_us: Clock

    async def request(self, body: Body) -> Body:
        """Ask that a second person allows the caller to watch or export a session. look, reason."""
        form, caller, asked = AccessWish.model_validate(_own(body)), body[CALLER], body[ASKED]
        session = await self.sessions.existing(form.session)
        command = RequestAccess(
            who=caller.subject, at_us=asked.time_us, cause=_cause(body), session=session.id, look=form.look,
            reason=form.reason, ends_us=asked.time_us + self.policy.request_life_us,
        )  # fmt: skip
        key = access_key(caller.subject, form.look)
        return self._shown(await self.access.execute(session.id, key, command), asked)

    async def approve(self, body: Body) -> Body:
        """Approve the request of another person; the grant ends by itself (ACCESS_GRANT_LIFE)."""
        return await self._answer(body, approve=True)

    async def refuse(self, body: Body) -> Body:
        """Refuse a request, end a grant early, or take the own request back."""
        return await self._answer(body, approve=False)

    async def list_page(self, body: Body) -> Body:
        """A page of requests, oldest first; without the permissions approve and read_audit: the own ones."""
        form, caller = AccessListed.model_validate(_own(body)), body[CALLER]
        sees_all = Reach.ALL in (reach(caller, Permission.APPROVE), reach(caller, Permission.READ_AUDIT))
        return await self.access.page(
            await chain_now_us(self.access.jet, self.clock_us),
            session=form.session,
            requester="" if sees_all else caller.subject,
            stage=form.stage,
            after=form.after,
            limit=form.limit,
        )

    async def _answer(self, body: Body, *, approve: bool) -> Body:
        form, caller, asked = AccessAnswer.model_validate(_own(body)), body[CALLER], body[ASKED]
        session, key, number = parse_request_id(form.request)
        if not approve:
            access = await self.access.load(session, key)
            if not same_person(access.requester, caller.subject):
                permit(caller, Permission.APPROVE)
        command = AnswerAccess(
            who=caller.subject, at_us=asked.time_us, cause=_cause(body), number=number, approve=approve,
            reason=form.reason, until_us=asked.time_us + self.policy.grant_life_us,
        )  # fmt: skip
        return self._shown(await self.access.execute(session, key, command), asked)

    def _shown(self, access: Access, asked: Asked) -> Body:
        return {"id": access.id, "stage": access.stage(asked.time_us), **details(access)}


def _cause(body: Body) -> str:
    """The caller's Idempotency-Key: a repeated request counts once. Without it, the id in the audit chain."""
    given, asked = body.get("cause"), body[ASKED]
    keyed = isinstance(given, str) and given.startswith(KEYED) and len(given) <= KEYED_CHARS
    return str(given if keyed else asked.id)


def _own(body: Body) -> Body:
    """The members of one command, without those of every request."""
    return {name: value for name, value in body.items() if name not in (CALLER, ASKED, *FILLED)}
