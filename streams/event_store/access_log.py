"""Reads and appends the logs of access requests; handlers/access/grants.py decides the events.

1. An append expects the last sequence that the decision was made on; after a Conflict the log is read on and
   the decision made again. A command that was repeated finds its own `cause`, and counts once.
2. The logs lie in AUDIT: neither a destroyed session nor a rebuilt read model touches them.
"""

from typing import Any

from handlers.access.grants import Access, check_grant, decide, evolve, initial
from schemas import subjects
from schemas.errors import Rejected
from schemas.events.access import AccessCommand, AccessRequested, access_key, read_access_event
from schemas.format.jcs import jcs
from schemas.ports import Jet
from streams.scheduling.retry import LOG_OUTAGE, retry, retry_conflicts

PAGE_MOST, SCAN_EVENTS = 200, 5000


class AccessLog:
    """The logs of all requests. It holds the connection alone."""

    def __init__(self, jet: Jet) -> None:
        self.jet = jet

    async def load(self, session: str, key: str) -> Access:
        """The fold of one log."""
        return await self._advance(initial(subjects.session_id(session), key))

    async def execute(self, session: str, key: str, command: AccessCommand) -> Access:
        """Append the event that the command decides; return the fold after it. Safe to repeat.

        Raises the errors of `decide`, Unavailable, NoSpace, Conflict (log.busy).
        """
        access = initial(subjects.session_id(session), key)

        async def attempt() -> Access:
            nonlocal access
            access = await self._advance(access)
            for event in decide(access, command):
                body = jcs(event.model_dump(mode="json"))
                seq = await self.jet.append(subjects.grants(session, key), body, access.last_seq)
                access = evolve(access, event, seq)
            return access

        return await retry_conflicts(lambda: retry(attempt, LOG_OUTAGE), f"access to {session}")

    async def require_grant(self, subject: str, session: str, look: str, now_us: int) -> Access:
        """Return the grant that allows this person the look now. now_us: time of the audit chain.

        Raises Denied (access.needed, access.unanswered, access.ended).
        """
        access = await self.load(session, access_key(subject, look))
        if access.number == 0:
            access = Access(access.session, access.key, look=look)  # type: ignore[arg-type]  # one of LOOKS
        check_grant(access, now_us)
        return access

    async def page(
        self,
        now_us: int,
        *,
        session: str = "",
        requester: str = "",
        stage: str = "",
        after: int = 0,
        limit: int = PAGE_MOST,
    ) -> dict[str, Any]:
        """A page of requests, oldest first, each with its stage. after: `next` of the page before, or 0."""
        filter_ = f"lucid.access.{subjects.session_id(session)}.*" if session else subjects.ALL_GRANTS
        found: list[dict[str, Any]] = []
        seq, scanned, more = after + 1, 0, True
        while more and scanned < SCAN_EVENTS:
            messages, more = await self.jet.batch(subjects.AUDIT, filter_, seq, PAGE_MOST)
            for message in messages:
                seq, scanned = message.seq + 1, scanned + 1
                event = _read(message.data)
                if not isinstance(event, AccessRequested) or requester not in ("", event.who):
                    continue
                _, _, of, key = message.subject.split(".")
                access = await self.load(of, key)
                row = _row(access, now_us)
                if access.number == event.number and stage in ("", row["stage"]):
                    found.append(row)
                if len(found) == limit:
                    is_last = not more and message is messages[-1]
                    return {"requests": found, "next": 0 if is_last else message.seq}
            if not messages:
                break
        return {"requests": found, "next": seq - 1 if more else 0}

    async def _advance(self, access: Access) -> Access:
        subject = subjects.grants(access.session, access.key)
        async for message in self.jet.read_all(subjects.AUDIT, subject, access.last_seq + 1):
            access = evolve(access, _read(message.data), message.seq)
        return access


def _read(data: Any) -> Any:
    """The event; None: a line that is no event of ours changes nothing."""
    try:
        return read_access_event(data)
    except Rejected:
        return None


def _row(access: Access, now_us: int) -> dict[str, Any]:
    return {"id": access.id, "stage": access.stage(now_us), **details(access)}


def details(access: Access) -> dict[str, Any]:
    """A request as commands answer it."""
    return {
        "session": access.session,
        "look": access.look,
        "requester": access.requester,
        "reason": access.reason,
        "asked_us": access.asked_us,
        "ends_us": access.ends_us,
        "answered_by": access.answered_by,
        "answer_reason": access.answer_reason,
        "answered_us": access.answered_us,
        "until_us": access.until_us,
    }
