"""Records each command in the audit chain: before it is carried out, and how it ended.

1. A person's command is carried out when its entry is durable, or not at all.
2. A host does not wait: how its command ended is recorded afterwards. Its session's log holds the act, too.
3. A command that shows no recording and changes nothing leaves no entry (UNAUDITED): every question about
   sessions, and those about the platform. Otherwise a reader that polls the chain would feed it.
4. A refusal at the door is one entry, and so is a command of a host that fails. More than REFUSALS_S of
   either kind in a second are only counted, so that no caller fills the chain with them.
5. `audit_reason` comes off the request here: the caller's words for the chain, such as the header X-Reason.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from schemas.access import Caller
from schemas.config.logs import logger
from schemas.errors import LucidError
from streams.control.questions import QUESTIONS
from streams.event_store.audit_log import AuditLog

Body = dict[str, Any]
Handler = Callable[[Body], Awaitable[Body]]
OF_THE_PLATFORM = ("ping", "room", "running", "scrub", "signers", "audit", "access_list")
"""Questions about the platform itself."""
UNAUDITED = frozenset((*QUESTIONS, *OF_THE_PLATFORM))
REASON = "audit_reason"
FILLED = ("who", "at_us", "cause")
"""Members that a request has although its command does not know them."""
CALLER, ASKED = "caller", "asked"
TO_CALLERS = frozenset(("access_request", "access_approve", "access_refuse", "access_list"))
"""Commands that are about the caller itself."""
REFUSALS_S = 10

log = logger("lucid.audit")


@dataclass(slots=True)
class _Bound:
    """Lets REFUSALS_S entries of one kind through in a second."""

    kind: str
    _second: int = 0
    _count: int = 0

    def allows(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            if self._count > REFUSALS_S:
                log.warning("audit_refusals_left_out", kind=self.kind, refusals=self._count - REFUSALS_S)
            self._second, self._count = second, 0
        self._count += 1
        return self._count <= REFUSALS_S


@dataclass(slots=True)
class Auditor:
    """One for each process that answers commands."""

    audit: AuditLog
    _door: _Bound = field(default_factory=lambda: _Bound("door"))
    _hosts: _Bound = field(default_factory=lambda: _Bound("host"))
    """A bound of its own: hosts leave the refusals of persons in the chain."""

    async def carry_out(self, caller: Caller, name: str, body: Body, handler: Handler) -> Body:
        """Return the handler's answer, recorded. Raises its errors, and those of `AuditLog.asked`.

        The handler finds the caller and its entry in the members CALLER and ASKED, which no request can have.
        """
        reason, session = _reason(body), _text(body.get("session"))
        body = {key: value for key, value in body.items() if key not in (REASON, CALLER, ASKED)}
        if name in TO_CALLERS:
            body[CALLER] = caller
        if name in UNAUDITED:
            return await handler(body)
        if caller.host:
            return await self._noted(caller, name, session, handler(body))
        asked = await self.audit.asked(caller, name, session, reason, request=_text(body.get("cause")))
        if name in TO_CALLERS:
            body[ASKED] = asked
        try:
            result = await handler(body)
        except BaseException as error:
            asked.ended_by(error)
            raise
        asked.outcome()
        return result

    def refused(self, caller: Caller, name: str, body: Body, error: LucidError) -> None:
        """Record a request that its caller may not make."""
        bound = self._hosts if caller.host else self._door
        if name not in UNAUDITED and bound.allows():
            self.audit.note(caller, name, _text(body.get("session")), error)

    async def _noted(self, caller: Caller, name: str, session: str, work: Awaitable[Body]) -> Body:
        try:
            result = await work
        except LucidError as error:
            if self._hosts.allows():
                self.audit.note(caller, name, session, error)
            raise
        self.audit.note(caller, name, session)
        return result


def _reason(body: Body) -> str:
    """The caller's words; without them, the reason that the command itself has."""
    return _text(body.get(REASON)) or _text(body.get("reason"))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
