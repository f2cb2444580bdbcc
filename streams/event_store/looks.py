"""The one door for looks at recordings: reason, second person, and an entry in the audit chain.

    asked (durable) → reason → grant → the bytes leave → outcome

1. A refused look is in the chain, too: its outcome names the code.
2. A grant may end while bytes leave: `still` tells.
3. The policy is that of the process that shows the bytes (ACCESS_* in its settings).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from schemas.access import Caller
from schemas.config.access import AccessSettings
from schemas.errors import Misuse
from schemas.events.access import Look
from streams.event_store.access_log import AccessLog
from streams.event_store.audit_log import Asked, AuditLog
from streams.event_store.audit_pages import chain_now_us
from streams.scheduling.clock import Clock, now_us

LOOK_OF: dict[str, Look] = {
    "watch": "watch",
    "download": "watch",
    "export": "export",
    "export_evidence": "export",
    "export_keys": "export",
}
"""By action. Every other action shows no picture: it is audited, and needs neither reason nor grant."""


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """Which looks need a reason, and which a second person; how long requests and grants last."""

    reason_for: frozenset[str] = frozenset()
    approval_for: frozenset[str] = frozenset()
    grant_life_us: int = 8 * 3600 * 10**6
    request_life_us: int = 7 * 86_400 * 10**6

    @classmethod
    def of(cls, settings: AccessSettings) -> "AccessPolicy":
        """The policy of a process."""
        life_us = int(settings.grant_life_s * 10**6)
        return cls(frozenset(settings.reason_for), frozenset(settings.approval_for), life_us)


@dataclass(frozen=True, slots=True)
class Looks:
    """One for each process that shows recordings."""

    audit: AuditLog
    access: AccessLog
    policy: AccessPolicy
    clock_us: Clock = now_us

    def needs_grant(self, action: str) -> bool:
        """Whether policy asks for a second person."""
        return LOOK_OF.get(action) in self.policy.approval_for

    async def still(self, caller: Caller, action: str, session: str) -> None:
        """Return if the caller may look on: a grant may have ended since `begin`.

        Raises Denied (access.*), Unavailable.
        """
        if self.needs_grant(action):
            now = await chain_now_us(self.access.jet, self.clock_us)
            await self.access.require_grant(caller.subject, session, str(LOOK_OF[action]), now)

    @asynccontextmanager
    async def look(
        self,
        caller: Caller,
        action: str,
        session: str,
        reason: str = "",
        *,
        uid: bytes = b"",
        detail: str = "",
    ) -> AsyncIterator[Asked]:
        """Let the bytes leave inside the block. action: a key of LOOK_OF, or another word.

        Raises Misuse (access.reason), Denied (access.*), and as `AuditLog.asked`: nothing may leave.
        """
        asked = await self.begin(caller, action, session, reason, uid=uid, detail=detail)
        with asked.carried_out():
            yield asked

    async def begin(
        self,
        caller: Caller,
        action: str,
        session: str,
        reason: str = "",
        *,
        uid: bytes = b"",
        detail: str = "",
    ) -> Asked:
        """Return when bytes may leave; the caller then gives the outcome. Raises as `look`."""
        asked = await self.audit.asked(caller, action, session, reason, uid=uid, detail=detail)
        try:
            await self.require_grant(caller, session, action, reason, asked.time_us)
        except BaseException as error:
            asked.ended_by(error)
            raise
        return asked

    async def require_grant(
        self, caller: Caller, session: str, action: str, reason: str, now_us: int
    ) -> None:
        """Return if policy lets the caller look now. now_us: `Asked.time_us`. Raises as `look`."""
        look = LOOK_OF.get(action)
        if look in self.policy.reason_for and not reason.strip():
            raise Misuse(
                f"policy asks for a reason to {look} a recording",
                code="access.reason",
                hint="give --reason TEXT, or the header X-Reason",
            )
        if look in self.policy.approval_for:
            await self.access.require_grant(caller.subject, session, str(look), now_us)
