"""Owns what this process knows of every session: the fold of each log, kept by following LIFECYCLE.

1. It may lag behind the log by a moment, never contradict it; who needs the newest asks `caught_up`.
2. One task runs `run` until it is cancelled; all else is read by anyone on the same event loop.
3. It decides nothing and appends nothing.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable

from handlers.session import Session, evolve, initial
from schemas import subjects
from schemas.errors import Misuse, Rejected
from schemas.jetstream import Discontinuity, Message
from schemas.ports import Reader
from streams.lifecycle import read_event

log = logging.getLogger("lucid.directory")


class Directory:
    """Every session by id. `run` keeps it; nothing is known before `ready`."""

    def __init__(self, jet: Reader) -> None:
        self._jet = jet
        self._sessions: dict[str, Session] = {}
        self._callbacks: list[Callable[[Session], None]] = []
        self._position = 0
        """Stream sequence of the last event that was folded."""
        self._moved = asyncio.Condition()
        self._ready = False

    async def run(self) -> None:
        """Follow the log until cancelled."""
        async for item in self._jet.follow(subjects.LIFECYCLE, [subjects.ALL_LIFECYCLE]):
            if isinstance(item, Discontinuity):
                continue
            self._take(item)
            async with self._moved:
                self._moved.notify_all()

    async def ready(self) -> None:
        """Return when everything that stood in the log at the first call is known."""
        if not self._ready:
            await self.caught_up()
            self._ready = True

    async def caught_up(self) -> None:
        """Return when everything that stands in the log now is known."""
        last = await self._jet.last(subjects.LIFECYCLE, subjects.ALL_LIFECYCLE)
        if last is None:
            return
        async with self._moved:
            await self._moved.wait_for(lambda: self._position >= last.seq)

    def get(self, session_id: str) -> Session | None:
        """The session as far as known; None: unknown."""
        return self._sessions.get(session_id)

    def sessions(self) -> Iterable[Session]:
        """Every session that is known, in order of its creation."""
        return tuple(self._sessions.values())

    def on_change(self, callback: Callable[[Session], None]) -> None:
        """Call `callback` with a session after each of its events from now on. It must not block."""
        self._callbacks.append(callback)

    async def until(self, session_id: str, wanted: Callable[[Session], bool]) -> Session:
        """Return the session once it is as wanted. Waits for ever: bound it from outside."""
        async with self._moved:
            while True:
                session = self._sessions.get(session_id)
                if session is not None and wanted(session):
                    return session
                await self._moved.wait()

    def _take(self, message: Message) -> None:
        name = subjects.session_of(message.subject)
        self._position = message.seq
        try:
            subjects.session_id(name)
        except Misuse:
            log.error("session_unnameable name=%.200r seq=%d", name, message.seq)
            return
        try:
            event = read_event(message.data)
        except Rejected as error:
            # One bad line must not hide every other session; the session itself refuses all commands.
            log.error("event_unreadable session=%s seq=%d error=%s", name, message.seq, error)
            event = None
        session = evolve(self._sessions.get(name) or initial(name), event, message.seq)
        self._sessions[name] = session
        for callback in self._callbacks:
            callback(session)
