"""Keeps the unfinished sessions in memory, and finds every other session; each is the fold of its log.

1. In memory are the unfinished sessions, and the RECENT finished ones that were asked for last. So a finished
   session costs no memory and no time; `find` reads its log.
2. It starts from the list of open sessions (open_sessions.py) and folds all later events of the log.
3. It may lag behind the log, but never contradicts it; `caught_up` waits for the newest event.
4. One task runs `run` until it is cancelled; any task on the same event loop may read.
5. It decides nothing and appends nothing.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping

from handlers.lifecycle.session import Session, evolve, initial
from handlers.retention.space import may_purge
from schemas import subjects
from schemas.config.logs import logger
from schemas.errors import Misuse, Rejected
from schemas.events.session import Created, Event
from schemas.ports import Reader
from schemas.ports.messages import Message
from streams.event_store.open_sessions import OpenSessions, read_open
from streams.event_store.session_log import read_event
from streams.scheduling.retry import retry

RECENT = 500
"""Finished sessions in memory, about 7 kB each."""
LOADS_AT_ONCE = 16
SLICE = 50
"""Events that are folded before other tasks run: about 3 ms."""

log = logger("lucid.directory")


class SessionDirectory:
    """Every session by id. `run` fills it; it is incomplete before `ready` returns."""

    def __init__(
        self,
        jet: Reader,
        start: Callable[[Reader], Awaitable[OpenSessions]] = read_open,
        pause: Callable[[], Awaitable[object]] = lambda: asyncio.sleep(0),
        sources: bool = False,
    ) -> None:
        """start: reads the first list. pause: awaited after every SLICE of events. sources: keep `sealed`."""
        self._jet, self._start, self._pause, self._sources = jet, start, pause, sources
        self._open: dict[str, Session] = {}
        self._recent: OrderedDict[str, Session] = OrderedDict()
        self._sealed: dict[str, int] = {}
        self._callbacks: list[Callable[[Session], None]] = []
        self._position = 0
        """Stream sequence of the last folded event."""
        self._moved = asyncio.Condition()
        self._ready = False

    async def run(self) -> None:
        """Follow the log until cancelled."""
        await retry(self._begin)
        await self._notify()
        follower = self._jet.follow(subjects.LIFECYCLE, [subjects.ALL_LIFECYCLE], self._position + 1)
        try:
            while items := await follower.batch():
                for start in range(0, len(items), SLICE):
                    for item in items[start : start + SLICE]:
                        if isinstance(item, Message):
                            await self._take(item)
                    await self._notify()
                    await self._pause()
        finally:
            await follower.close()

    async def ready(self) -> None:
        """Return when every event that was in the log at the first call is folded."""
        if not self._ready:
            await self.caught_up()
            self._ready = True

    async def caught_up(self) -> None:
        """Return when every event that is in the log now is folded."""
        last = await self._jet.last(subjects.LIFECYCLE, subjects.ALL_LIFECYCLE)
        if last is not None:
            await self.reached(last.seq)

    async def reached(self, seq: int) -> None:
        """Return when the log is folded up to a stream sequence."""
        async with self._moved:
            await self._moved.wait_for(lambda: self._position >= seq)

    def get(self, session_id: str) -> Session | None:
        """The session if it is in memory. None: there is none, or it is finished."""
        return self._open.get(session_id) or self._recent.get(session_id)

    async def find(self, session_id: str) -> Session | None:
        """The session, read from its log if it is not in memory; None: there is none. Raises Unavailable."""
        session = self.get(session_id)
        if session is not None:
            if session_id in self._recent:
                self._recent.move_to_end(session_id)
            return session
        loaded = await self._load(session_id)
        # The log was followed meanwhile: the session in memory may be newer.
        session = self.get(session_id)
        if session is not None and session.last_seq >= loaded.last_seq:
            return session
        if not loaded.events:
            return None
        if session_id not in self._open:
            self._remember(loaded)
        return loaded

    def sessions(self) -> Iterable[Session]:
        """Every session that is not finished."""
        return tuple(self._open.values())

    @property
    def position(self) -> int:
        """Stream sequence of the last folded event."""
        return self._position

    @property
    def sealed(self) -> Mapping[str, int]:
        """Sealed sessions with a source that may still be there, by the time of their seal in µs.

        The owner of a directory with `sources` calls `source_gone` for each; otherwise they stay for ever.
        """
        return self._sealed

    def source_gone(self, session_id: str) -> None:
        """Forget a session: its source is gone."""
        self._sealed.pop(session_id, None)

    def has_source(self, session: Session) -> None:
        """Remember a sealed session: something came under its name."""
        self._sealed[session.id] = session.seals[-1].at_us

    def open_sessions(self) -> OpenSessions:
        """The list from which a later directory can start."""
        return OpenSessions(self._position, tuple(self._open), dict(self._sealed))

    def on_change(self, callback: Callable[[Session], None]) -> None:
        """Call `callback` with a session after each of its events from now on. It must not block."""
        self._callbacks.append(callback)

    async def until(self, session_id: str, wanted: Callable[[Session], bool]) -> Session:
        """Return the session when `wanted` is true of it. Without a bound: the caller sets one."""
        await self.find(session_id)
        async with self._moved:
            while True:
                session = self.get(session_id)
                if session is not None and wanted(session):
                    return session
                await self._moved.wait()

    async def _begin(self) -> None:
        known = await self._start(self._jet)
        at_once = asyncio.Semaphore(LOADS_AT_ONCE)

        async def load(name: str) -> Session:
            async with at_once:
                return await self._load(name)

        loaded = await asyncio.gather(*map(load, known.names))
        for session in sorted(loaded, key=lambda one: one.first_seq):
            if session.finished:
                self._remember(session)
            else:
                self._open[session.id] = session
        if self._sources:
            self._sealed.update(known.sealed)
            for session in filter(may_purge, loaded):  # sealed, though its last event was another one
                self.has_source(session)
        self._position = known.position
        log.info("directory_started", position=known.position, open=len(self._open))

    async def _notify(self) -> None:
        async with self._moved:
            self._moved.notify_all()

    async def _load(self, name: str) -> Session:
        session = initial(subjects.session_id(name))
        async for message in self._jet.read_all(subjects.LIFECYCLE, subjects.lifecycle(name)):
            session = evolve(session, _event(message), message.seq)
        return session

    async def _take(self, message: Message) -> None:
        name = subjects.session_of(message.subject)
        try:
            subjects.session_id(name)
        except Misuse:
            log.error("session_unnameable", name=name[:200], seq=message.seq)
            self._position = message.seq
            return
        event = _event(message)
        session = self.get(name)
        if session is None and not isinstance(event, Created):
            # It was finished, and a command changed it again.
            session = await retry(lambda: self._load(name))
            session = max(session, self.get(name) or session, key=lambda one: one.last_seq)
        session = evolve(session or initial(name), event, message.seq)
        self._position = message.seq
        self._place(session)
        for callback in self._callbacks:
            callback(session)

    def _place(self, session: Session) -> None:
        if session.finished:
            self._open.pop(session.id, None)
            self._remember(session)
        else:
            self._recent.pop(session.id, None)
            self._open[session.id] = session
        if self._sources and may_purge(session):
            self.has_source(session)
        else:
            self.source_gone(session.id)

    def _remember(self, session: Session) -> None:
        self._recent[session.id] = session
        self._recent.move_to_end(session.id)
        if len(self._recent) > RECENT:
            self._recent.popitem(last=False)


def _event(message: Message) -> Event | None:
    try:
        return read_event(message.data)
    except Rejected as error:
        # One bad event must not hide every other session; this session refuses all commands.
        name = subjects.session_of(message.subject)
        log.error("event_unreadable", session=name, seq=message.seq, error=error)
        return None
