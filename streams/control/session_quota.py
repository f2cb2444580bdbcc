"""Limits how many sessions run at once, and how many unsealed ones a host may have.

1. A session takes a place of its host from its creation until it is sealed or destroyed. So does one that was
   never started, and one in ERROR: each costs memory in every service.
2. All running sessions are limited together, at their start, exactly (running_places.py).
3. The sessions of a host are counted by each process: it counts those that it let through and the directory
   does not show yet. Several processes may each let through sessions that the others have not seen yet.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field

from handlers.lifecycle.session import Session
from schemas.errors import RefusedByState, Rejected, Unavailable
from schemas.subjects import UPLOAD_HOST
from streams.control.running_places import START_MOST_S, RunningPlaces
from streams.event_store.session_directory import SessionDirectory

UNDER_WAY = 1 << 63
"""Instead of the stream sequence of an event that is not appended yet."""

Coming = dict[str, tuple[str, int]]
"""By session, its host, and the stream sequence from which on the directory shows it."""


@dataclass(slots=True)
class SessionQuota:
    """One for each process that answers commands."""

    directory: SessionDirectory
    places: RunningPlaces
    most_of_host: int = 250
    """The upload host is not one machine: it may have as many as may run in all."""
    _creating: Coming = field(default_factory=dict)

    async def create(self, host: str, session: str, creating: Awaitable[Session]) -> Session:
        """Await the creation of a session if its host has a place. Raises RefusedByState (host.places)."""
        most = max(self.places.most, self.most_of_host) if host == UPLOAD_HOST else self.most_of_host
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
        """Await the start of a session if there is a place.

        Raises RefusedByState (sessions.limit), Unavailable (start.slow), and the errors of `starting`.
        """
        try:
            await self.places.take(session)
        except BaseException:
            _close(starting)
            raise
        done, certain = None, False
        try:
            async with asyncio.timeout(START_MOST_S):
                done = await starting
            return done
        except TimeoutError:
            raise Unavailable(
                f"the start of session {session} is not in the log after {START_MOST_S:.0f} s",
                code="start.slow",
                hint="repeat the command",
            ) from None
        except Rejected:
            certain = True
            raise
        finally:
            self.places.give_back(session, done, certain)

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
