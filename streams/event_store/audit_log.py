"""Records requests in the audit chain: one entry before a thing is done or shown, and one after it.

    asked (durable) → the work → outcome

1. If the chain takes no entry, `asked` raises, and nothing is done unrecorded.
2. Outcomes wait in memory and are tried again. A process that ends leaves `asked` without `outcome`.
3. `note` records without delay: for hosts, which must not wait. The session log holds their acts, too.
   Notes leave the last fifth of the stream to requests that are refused without an entry.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from schemas.access import Caller
from schemas.config.logs import logger
from schemas.errors import Busy, LucidError, Rejected
from schemas.events.audit import ROLES_MOST, WHO_CHARS, Act, Outcome, plain_text, plain_word
from schemas.ports import Jet
from streams.event_store.audit_writer import ChainWriter, Waiting
from streams.scheduling.clock import Clock

WAITING_MOST = 4096
CLOSE_S = 10.0
URGENT = frozenset(("stop", "abort", "pause", "pause_pipeline", "hold", "record_stop"))
"""They end or protect a recording: they may use the reserve of the stream."""

log = logger("lucid.audit")


@dataclass(slots=True)
class Asked:
    """A request that is in the chain. Its outcome is written once; a second one is ignored."""

    time_us: int
    """Time of the chain: it never goes back."""
    _writer: ChainWriter
    _act: Act
    _open: bool = True

    @property
    def id(self) -> str:
        """Of the request in the chain, hex."""
        return self._act.id.hex()

    def outcome(self, outcome: Outcome = "ok", code: str = "", detail: str = "") -> None:
        """Write how it ended, without a wait: it is durable soon, and before `AuditLog.close` returns."""
        if self._open:
            self._open = False
            result = {"phase": "outcome", "outcome": outcome, "code": plain_word(code), "reason": ""}
            act = self._act.model_copy(update={**result, "detail": plain_text(detail)})
            self._writer.add(Waiting(act, urgent=True, kept=True))

    @contextmanager
    def carried_out(self) -> Iterator[None]:
        """Give the outcome at the end of the block: by the error that leaves it, or `ok`."""
        try:
            yield
        except BaseException as error:
            self.ended_by(error)
            raise
        self.outcome()

    def ended_by(self, error: BaseException) -> None:
        """Write that it ended with this error."""
        self.outcome(_outcome(error), _code(error))


class AuditLog:
    """One for each event loop of a process. `close` it, so that no outcome is lost."""

    def __init__(self, jet: Jet, clock_us: Clock) -> None:
        self.jet = jet
        self._writer = ChainWriter(jet, clock_us)

    async def asked(
        self,
        caller: Caller,
        action: str,
        session: str = "",
        reason: str = "",
        *,
        uid: bytes = b"",
        request: str = "",
        detail: str = "",
    ) -> Asked:
        """Return when the request is durable in the chain. The caller then acts, and gives the outcome.

        Raises Unavailable (audit.away), NoSpace (audit.full), Busy (audit.busy): nothing may be done.
        """
        act = _act(
            caller, action, session, phase="asked", uid=uid.hex(), reason=plain_text(reason),
            request=plain_word(request), detail=plain_text(detail),
        )  # fmt: skip
        if self._writer.waiting >= WAITING_MOST:
            raise Busy("too many requests wait for the audit log", code="audit.busy", hint="ask again")
        written = asyncio.get_running_loop().create_future()
        self._writer.add(Waiting(act, urgent=action in URGENT, written=written))
        return Asked(await written, self._writer, act)

    @asynccontextmanager
    async def looking(
        self,
        caller: Caller,
        action: str,
        session: str,
        reason: str = "",
        *,
        uid: bytes = b"",
        detail: str = "",
    ) -> AsyncIterator[Asked]:
        """`asked` before the block, its outcome after it: by the error that leaves it, or `ok`."""
        asked = await self.asked(caller, action, session, reason, uid=uid, detail=detail)
        with asked.carried_out():
            yield asked

    def note(self, caller: Caller, action: str, session: str = "", error: LucidError | None = None) -> None:
        """Record, without a wait, how a request ended that was never `asked`.

        If the chain does not take it, it is lost, and a line of the service's log says so.
        """
        outcome, code = ("ok", "") if error is None else (_outcome(error), _code(error))
        act = _act(caller, action, session, phase="outcome", outcome=outcome, code=code)
        if self._writer.waiting < WAITING_MOST:
            self._writer.add(Waiting(act, note=True))
        else:
            log.error("audit_entry_lost", action=act.action, session=act.session)

    async def noted(self, caller: Caller, action: str, session: str, error: LucidError) -> None:
        """As `note`, with the error's message. Returns when the entry is durable.

        Raises Unavailable (audit.away), NoSpace (audit.full): the chain may have it all the same.
        """
        outcome, detail = _outcome(error), plain_text(error.message)
        act = _act(
            caller, action, session, phase="outcome", outcome=outcome, code=_code(error), detail=detail
        )
        written = asyncio.get_running_loop().create_future()
        self._writer.add(Waiting(act, note=True, written=written))
        await written

    def taken_over(self, asked: Asked) -> Asked:
        """The same request, to give its outcome over this log's connection."""
        return replace(asked, _writer=self._writer)

    async def close(self, timeout_s: float = CLOSE_S) -> None:
        """Return when every outcome is durable, or after `timeout_s`."""
        await self._writer.close(timeout_s)


def _act(caller: Caller, action: str, session: str, **more: Any) -> Act:
    roles = tuple(sorted(plain_word(str(role)) for role in caller.roles))[:ROLES_MOST]
    return Act(
        id=secrets.token_bytes(16),
        who=plain_text(caller.subject, WHO_CHARS),
        roles=roles,
        address=plain_word(caller.address),
        action=plain_word(action),
        session=plain_word(session),
        **more,
    )


def _outcome(error: BaseException) -> Outcome:
    return "refused" if isinstance(error, Rejected | ValueError) else "failed"


def _code(error: BaseException) -> str:
    if isinstance(error, LucidError):
        return plain_word(error.code)
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return "cancelled"
    return plain_word(type(error).__name__)
