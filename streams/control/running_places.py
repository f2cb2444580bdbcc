"""Gives each session that starts a place among the running ones, exactly, however many conductors run.

    lucid.open.places   position in LIFECYCLE, and the starts under way

1. A place is written before the event that starts its session. The write expects the places that its writer
   has read, and the writer knows the log up to their position. So of two conductors one decides again.
2. Taken are the sessions that run, by the log, and the written places of starts under way. A process leaves
   out its own place when its directory shows the start, or when the start was refused for certain.
3. Starts that wait for one write are written together.
4. After a crash between the place and the event the place is free again after PLACE_S. The event of a start
   is given up after START_MOST_S, long before. The clock of the server counts, for all processes.
5. The places are derived: if they are lost, the log is read to its end. Without the stream OPEN each process
   counts alone, and sessions still start.
"""

import asyncio
import secrets
from dataclasses import dataclass, field
from functools import partial

from pydantic import BaseModel, ConfigDict, ValidationError

from handlers.lifecycle.session import Session
from schemas import subjects
from schemas.buffers import Bytes
from schemas.config.logs import logger
from schemas.errors import LucidError, NotFound, RefusedByState
from schemas.events.session import State
from schemas.ports import Jet
from streams.event_store.session_directory import SessionDirectory
from streams.scheduling import clock
from streams.scheduling.retry import retry_conflicts

RUNNING = (State.STARTING, State.ACTIVE, State.PAUSING, State.PAUSED, State.STOPPING)
START_MOST_S, PLACE_S = 15.0, 40.0
PLACE_US = round(PLACE_S * 1e6)
CLEAR_EVERY = 200
"""Older places are removed after so many writes."""
UNDER_WAY = 1 << 63
"""Instead of the stream sequence of an event that is not appended yet."""

log = logger("lucid.places")


class _Place(BaseModel):
    """One start under way. owner: the process that starts the session."""

    model_config = ConfigDict(frozen=True)

    owner: str
    until_us: int


class _Places(BaseModel):
    model_config = ConfigDict(frozen=True)

    version: int = 1
    position: int = 0
    places: dict[str, _Place] = {}


_Wanted = tuple[str, "asyncio.Future[None]"]


@dataclass(slots=True)
class _Mine:
    """A place of this process. seq: from then on the directory shows the session; 0: it was refused."""

    until_us: int
    seq: int = UNDER_WAY
    holders: int = 0


@dataclass(slots=True)
class RunningPlaces:
    """One for each process that answers commands."""

    directory: SessionDirectory
    jet: Jet
    most: int
    _owner: str = field(default_factory=lambda: secrets.token_hex(8))
    _mine: dict[str, _Mine] = field(default_factory=dict)
    _wanted: list[_Wanted] = field(default_factory=list)
    _writing: "asyncio.Task[None] | None" = None
    _known: tuple[int, _Places] | None = None
    """The newest written places, with their sequence; None: they must be read."""
    _writes: int = 0

    def running(self) -> list[str]:
        """The sessions that run."""
        return [session.id for session in self.directory.sessions() if session.state in RUNNING]

    async def take(self, session: str) -> None:
        """Return when the session has a place. `give_back` must follow.

        Raises RefusedByState (sessions.limit), Unavailable, NoSpace, Conflict (log.busy).
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wanted.append((session, future))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all(), name="running places")
        await future

    def give_back(self, session: str, done: Session | None, certain: bool) -> None:
        """End a start. done: the session after it. certain: it was refused, and the log does not hold it."""
        mine = self._mine[session]
        mine.holders -= 1
        if done is not None:
            mine.seq = done.last_seq if mine.seq == UNDER_WAY else max(mine.seq, done.last_seq)
        elif certain and mine.holders == 0 and mine.seq == UNDER_WAY:
            mine.seq = 0

    async def _write_all(self) -> None:
        try:
            while self._wanted:
                batch, self._wanted = self._wanted, []
                try:
                    await retry_conflicts(partial(self._write, batch), "the running places")
                except LucidError as error:
                    self._known = None
                    for _, future in batch:
                        if not future.done():
                            future.set_exception(error)
        finally:
            self._writing = None

    async def _write(self, batch: list[_Wanted]) -> None:
        """Decide one batch. Raises Conflict: another process has written."""
        seq, others, now_us = await self._read()
        granted, refused = self._decide(batch, others)
        if refused:  # sessions may have ended, and others may have given places back meanwhile
            await self.directory.caught_up()
            self._known = None
            seq, others, now_us = await self._read()
            granted, refused = self._decide(batch, others)
        if granted:
            until_us = now_us + PLACE_US
            mine = {name: one.until_us for name, one in self._mine.items()}
            mine |= {name: until_us for name, _ in granted}
            written = {name: _Place(owner=self._owner, until_us=end_us) for name, end_us in mine.items()}
            await self._append(seq, _Places(position=self.directory.position, places={**others, **written}))
        for session, future in granted:
            place = self._mine.setdefault(session, _Mine(until_us))
            place.until_us, place.seq = until_us, UNDER_WAY
            if not future.done():  # otherwise its caller is gone: the place is free again after PLACE_S
                place.holders += 1
                future.set_result(None)
        for error, future in refused:
            if not future.done():
                future.set_exception(error)

    def _decide(
        self, batch: list[_Wanted], others: dict[str, _Place]
    ) -> tuple[list[_Wanted], list[tuple[RefusedByState, "asyncio.Future[None]"]]]:
        """Those of the batch that get a place, and those that are refused."""
        granted: list[_Wanted] = []
        refused: list[tuple[RefusedByState, asyncio.Future[None]]] = []
        taken = {*self.running(), *others, *self._mine}
        for session, future in batch:
            if session in taken or len(taken) < self.most:
                taken.add(session)
                granted.append((session, future))
            else:
                refused.append((self._refusal(len(taken)), future))
        return granted, refused

    def _refusal(self, count: int) -> RefusedByState:
        return RefusedByState(
            f"{count} sessions are running (allowed: {self.most})",
            code="sessions.limit",
            hint="stop one, or raise MAX_CONCURRENT_SESSIONS where the platform runs",
        )

    async def _read(self) -> tuple[int | None, dict[str, _Place], int]:
        """The sequence of the newest places, those of other processes that count now, and the server's time.

        On return the directory shows every start that has no place among them. None: there is no stream.
        """
        try:
            if self._known is None:
                found = await self.jet.last(subjects.OPEN, subjects.OPEN_PLACES)
                places = _read_places(found.data) if found else _Places(position=1 << 63)
                self._known = found.seq if found else 0, places
            now_us = (await self.jet.info(subjects.OPEN)).now_us
        except NotFound:
            log.warning("running_places_lost", stream=subjects.OPEN)
            return None, {}, clock.now_us()
        seq, held = self._known
        position = self.directory.position
        others = {name: one for name, one in held.places.items() if one.owner != self._owner}
        counting = {name: one for name, one in others.items() if not _is_over(one, now_us)}
        gone = [name for name, one in self._mine.items() if one.holders == 0 and _is_over(one, now_us)]
        if position < held.position or len(counting) < len(others) or gone:
            await self.directory.caught_up()
        for name in [name for name, one in self._mine.items() if one.holders == 0 and one.seq <= position]:
            del self._mine[name]
        for name in gone:
            self._mine.pop(name, None)
        return seq, counting, now_us

    async def _append(self, seq: int | None, places: _Places) -> None:
        if seq is None:
            return
        self._known = None
        written = await self.jet.append(subjects.OPEN_PLACES, places.model_dump_json().encode(), seq)
        self._known = written, places
        self._writes += 1
        if self._writes % CLEAR_EVERY == 1:  # a crash before it leaves old places, which nobody reads
            await self.jet.purge(subjects.OPEN, subjects.OPEN_PLACES, written - 1)


def _is_over(place: _Place | _Mine, now_us: int) -> bool:
    """Whether a place no longer counts. One far in the future is from before the server's clock went back."""
    return not now_us < place.until_us <= now_us + 2 * PLACE_US


def _read_places(raw: Bytes) -> _Places:
    """The places; those that are not readable count as lost."""
    try:
        return _Places.model_validate_json(bytes(raw))
    except ValidationError:
        log.warning("running_places_unreadable")
        return _Places(position=1 << 63)
