"""Records the looks of the command line: in the audit chain before bytes leave, their outcome after.

1. The caller is the subject of the token that the command line sends; without a valid one, the account of
   this machine (`local:<user>`).
2. Work outside of the event loop begins after `begin`, and its outcome is told over a new connection. If that
   fails, the chain has no outcome, and a note says so.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Annotated

import typer

from schemas.access import Caller
from schemas.errors import LucidError
from schemas.ports import Jet
from streams.cli import output
from streams.cli.attach import attached, run
from streams.event_store.access_log import AccessLog
from streams.event_store.audit_log import Asked, AuditLog
from streams.event_store.looks import AccessPolicy, Looks
from streams.roles.drivers import Installation
from streams.scheduling.clock import now_us

ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; for the audit chain.")]


@dataclass(frozen=True, slots=True)
class Looking:
    """The looks of one caller over one connection."""

    looks: Looks
    caller: Caller

    @asynccontextmanager
    async def look(
        self, action: str, session: str, reason: str = "", *, uid: bytes = b"", detail: str = ""
    ) -> AsyncIterator[Asked]:
        """As `Looks.look`, for this caller."""
        async with self.looks.look(self.caller, action, session, reason, uid=uid, detail=detail) as asked:
            yield asked

    async def begin(
        self, action: str, session: str, reason: str = "", *, uid: bytes = b"", detail: str = ""
    ) -> Asked:
        """Return when the look may begin; `ended` tells its outcome. Raises as `Looks.look`."""
        return await self.looks.begin(self.caller, action, session, reason, uid=uid, detail=detail)


@asynccontextmanager
async def looking(here: Installation, jet: Jet) -> AsyncIterator[Looking]:
    """The looks of this command line; every outcome is durable when the block ends."""
    audit = AuditLog(jet, now_us)
    try:
        yield Looking(Looks(audit, AccessLog(jet), AccessPolicy.of(here.settings)), await own_caller(here))
    finally:
        await audit.close()


async def own_caller(here: Installation) -> Caller:
    """The caller of this command line."""
    try:
        return await here.tokens.caller(here.credential(), "")
    except LucidError:
        return Caller(f"local:{here.data.user()}", frozenset())
    finally:
        await here.tokens.close()


@contextmanager
def ended(asked: Asked | None) -> Iterator[None]:
    """Tell the outcome of a look that `begin` has begun, when the block ends. None: there was none."""
    if asked is None:
        yield
        return
    try:
        yield
    except BaseException as error:
        _tell(asked, error)
        raise
    _tell(asked, None)


def _tell(asked: Asked, error: BaseException | None) -> None:
    async def work() -> None:
        async with attached() as jet:
            audit = AuditLog(jet, now_us)
            told = audit.taken_over(asked)
            told.outcome() if error is None else told.ended_by(error)
            await audit.close()

    try:
        run(work())
    except LucidError as unsaid:
        output.note(f"lucid: the audit chain has no outcome of this: {unsaid.message}")
