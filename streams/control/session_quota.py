"""Limits how many sessions run at once, and how many unsealed ones a host may have.

1. A session takes a place of its host from its creation until it is sealed or destroyed. So does one that was
   never started, and one in ERROR: each costs memory in every service.
2. All running sessions are limited together, at their start.
3. One process decides exactly, however many requests come at once: it counts the sessions that it let through
   and the directory does not show yet. Several processes may each let through sessions that the others have
   not seen yet.
"""

from collections.abc import Awaitable
from dataclasses import dataclass, field

from handlers.lifecycle.session import Session
from schemas.errors import RefusedByState
from schemas.events.session import State
from schemas.subjects import UPLOAD_HOST
from streams.event_store.session_directory import SessionDirectory

RUNNING = (State.STARTING, State.ACTIVE, State.PAUSING, State.PAUSED, State.STOPPING)
UNDER_WAY = 1 << 63
"""Instead of the stream sequence of an event that is not appended yet."""

Coming = dict[str, tuple[str, int]]
"""By session, its host, and the stream sequence from which on the directory shows it."""


@dataclass(slots=True)
class SessionQuota:
    """One for each process that answers commands."""

    directory: SessionDirectory
    most: int = 1000
    most_of_host: int = 250
    """The upload host is not one machine: it may have as many as may run in all."""
    _creating: Coming = field(default_factory=dict)
    _starting: Coming = field(default_factory=dict)

    def running(self) -> list[str]:
        """The sessions that run."""
        return [session.id for session in self.directory.sessions() if session.state in RUNNING]

    async def create(self, host: str, session: str, creating: Awaitable[Session]) -> Session:
        """Await the creation of a session if its host has a place. Raises RefusedByState (host.places)."""
        most = max(self.most, self.most_of_host) if host == UPLOAD_HOST else self.most_of_host
        coming = self._not_shown(self._creating)
        taken = {one.id for one in self.directory.sessions() if _takes_place_of(one, host)}
        taken |= {name for name, (owner, _) in coming.items() if owner == host}
        count = len(taken - {session})
        if count >= most:
            _close(creating)
            raise RefusedByState(
                f"host {host} has {count} sessions that are not sealed (allowed: {most})",
                code="host.places",
                hint=f"end some: lucid sessions list --host {host} (--state CREATED: never started); "
                "lucid sessions destroy NAME... gives places back; "
                "or raise MAX_SESSIONS_PER_HOST where the platform runs",
            )
        return await _let_through(coming, host, session, creating)

    async def start(self, session: str, starting: Awaitable[Session]) -> Session:
        """Await the start of a session if there is a place. Raises RefusedByState (sessions.limit)."""
        coming = self._not_shown(self._starting)
        running = {one.id for one in self.directory.sessions() if one.state in RUNNING}
        count = len((running | coming.keys()) - {session})
        if count >= self.most:
            _close(starting)
            raise RefusedByState(
                f"{count} sessions are running (allowed: {self.most})",
                code="sessions.limit",
                hint="stop one, or raise MAX_CONCURRENT_SESSIONS where the platform runs",
            )
        return await _let_through(coming, "", session, starting)

    def _not_shown(self, coming: Coming) -> Coming:
        """Remove the sessions that the directory shows by now."""
        for session in [name for name, (_, seq) in coming.items() if seq <= self.directory.position]:
            del coming[session]
        return coming


async def _let_through(coming: Coming, host: str, session: str, work: Awaitable[Session]) -> Session:
    coming[session] = host, UNDER_WAY
    seq = 0  # a failed one takes no place; if it was carried out all the same, the directory will show it
    try:
        done = await work
        seq = done.last_seq
        return done
    finally:
        coming[session] = host, seq


def _takes_place_of(session: Session, host: str) -> bool:
    return session.created is not None and session.created.host == host and not session.sealed


def _close(work: Awaitable[Session]) -> None:
    """Close a coroutine that will not be awaited."""
    close = getattr(work, "close", None)
    if close is not None:
        close()
