"""One pass of the scrub: the sealed sessions, those without a seal, and the streams.

1. A pass that was broken off goes on: with the file of a sealed session, the session, or the stream.
2. A session that is sealed in mid-pass, behind the place of the pass, is checked with those without a seal.
3. An outage (Unavailable, NoSpace) of one session is tried TRIES times, then it is a finding.
4. A list that does not follow the log is a finding, and the pass goes by the list that there is. The marks
   of the pass claim no event that this list lacks.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from handlers.lifecycle.session import Session
from schemas.config.logs import logger
from schemas.errors import LucidError, NoSpace, Rejected, Unavailable
from schemas.ports import Views
from schemas.ports.read_models import Place, SessionFilter, SessionQuery
from schemas.subjects import ALL_LIFECYCLE, LIFECYCLE
from schemas.telemetry.span_facts import BYTES, CHUNKS, FAULTS
from streams.event_store.event_store import EventStore
from streams.evidence.proof_spans import session_span
from streams.evidence.scrub_progress import ScrubProgress
from streams.evidence.scrub_report import ScrubReport
from streams.evidence.session_proof import SOURCE, Checked, Fault, SessionProof
from streams.evidence.stream_ends import StreamEnds
from streams.evidence.stream_proof import PROVEN, StreamProof, places_of
from streams.scheduling.clock import Clock

LIST_S = 0.2
"""The pause while the read models lack events of the log."""
LIST_WAIT_S = 300.0
"""The longest wait of one pass for them."""
PAGE = 200
TRIES = 3
SPAN = "prove session"
WHOLE, LOG, LIST = "session", "log", "list of sessions"
"""Places of alarms: the session cannot be checked; its log cannot be read; the list lacks sessions."""

log = logger("lucid.scrub")


@dataclass(slots=True)
class _Sums:
    """The sums of one look."""

    files: int = 0
    size: int = 0
    faults: int = 0

    def add(self, checked: Checked) -> None:
        self.files += checked.files
        self.size += checked.size
        self.faults += checked.fault is not None


@dataclass(slots=True)
class ScrubPass:
    """The checks of one scrub. between: awaited after each session and each stream."""

    store: EventStore
    views: Views
    clock_us: Clock
    progress: ScrubProgress
    report: ScrubReport
    sessions: SessionProof
    streams: StreamProof
    ends: StreamEnds
    between: "Callable[[ScrubPass], Awaitable[None]]"
    _failures: tuple[str, int] = ("", 0)
    """The session that an outage broke off, and how often."""

    async def run(self) -> None:
        """Go on with the pass that is open, or begin one, and carry it to its end."""
        progress = self.progress
        await self.store.directory.ready()
        progress.begin(tuple(one.id for one in self.store.directory.sessions() if _has_no_seal(one)))
        await progress.checkpoint(now=True)
        log.info("scrub_began", number=progress.state.current.number, after=progress.state.place.number)
        async for name in self._sealed_after(progress.state.place.number):
            await self._sealed(name)
            await self._rest()
        for name in progress.state.current.running:
            await self._running(name)
            progress.passed(name)
            await self._rest()
        for stream in PROVEN:
            if stream not in progress.state.place.streams:
                await self._stream(stream)
                await self._rest()
        await self.watch_ends()  # again: a server may notice a damaged block only when it is read
        await self._drop_destroyed()
        progress.end()
        await progress.checkpoint(now=True)
        ended = progress.state.current
        log.info("scrub_ended", number=ended.number, sessions=ended.sessions, chunks=ended.chunks,
                 bytes=ended.bytes, repaired=ended.repaired, alarms=ended.alarms)  # fmt: skip

    async def wished(self, name: str) -> bool:
        """Check one session now. False: it is destroyed, or its log cannot be read."""
        is_checked = await self._running(name)
        await self.report.note()
        await self.progress.checkpoint(now=True)
        return is_checked

    async def watch_ends(self) -> None:
        """Look whether a stream was cut."""
        async for checked in self.ends.look():
            self._count(checked, "", placed=False)
        await self.report.note()
        await self.progress.checkpoint()

    async def _rest(self) -> None:
        await self.report.note()
        await self._go_on()
        await self.between(self)

    async def _go_on(self) -> None:
        """Between two looks: write the state, and watch the ends of the streams."""
        await self.progress.checkpoint()
        if self.ends.is_due:
            try:
                await self.watch_ends()
            except LucidError as error:  # no fault of the session that is checked
                log.warning("scrub_ends_unknown", error=error)

    # sessions

    async def _sealed_after(self, number: int) -> AsyncIterator[str]:
        """The names of sealed sessions in the order of their creation, from the read models."""
        is_behind, wait_s = False, LIST_WAIT_S
        while True:
            at_us = self.clock_us()
            newest = await self.store.jet.last(LIFECYCLE, ALL_LIFECYCLE)
            end = newest.seq if newest else 0
            after = Place(number, number) if number else None
            query = SessionQuery(SessionFilter(sealed=True), descending=False, after=after, limit=PAGE)
            documents, generation = await self.views.sessions(query)
            while generation.position < end and wait_s > 0:  # it may lack a sealed session
                await asyncio.sleep(LIST_S)
                wait_s -= LIST_S
                await self.between(self)
                documents, generation = await self.views.sessions(query)
            if generation.position < end and not is_behind:
                is_behind = True
                text = "the list of sessions lacks events of the log: this pass may leave out sealed sessions"
                self._find("", LIST, LucidError(text, code="list.behind"))
            resumed = bool(documents) and documents[0].session == self.progress.state.place.session
            # The check of a session that goes on after a restart has begun under an earlier mark.
            first = documents[0].number + 1 if resumed else number + 1
            self.progress.mark(first, min(end, generation.position), at_us)
            for one in documents:
                yield one.session
            if len(documents) < PAGE:
                break
            number = documents[-1].number
        self.progress.close_older(LIST)

    async def _sealed(self, name: str) -> None:
        """Check one sealed session, as its log says now, and write down that it was."""
        session = await self._loaded(name)
        if session is None:
            self.progress.leave(0)
        elif session.created is not None and session.sealed and session.destroy is None:
            at = self.progress.enter(name, session.seals[-1].seal_no)
            await self._look_at(self.sessions.sealed(session, at.index, at.source), session, placed=True)
            self.progress.leave(session.first_seq)
            self.progress.passed(name)

    async def _running(self, name: str) -> bool:
        """Check one session, sealed or not, beside the place of the pass. False: it cannot be checked."""
        session = await self._loaded(name)
        if session is None or session.created is None or session.destroy is not None:
            return False
        checks = self.sessions.sealed(session, 0, 0) if session.sealed else self.sessions.running(session)
        await self._look_at(checks, session, placed=False)
        return True

    async def _look_at(self, checks: AsyncIterator[Checked], session: Session, *, placed: bool) -> None:
        began = self._begun(session.id if placed else "")
        with session_span(self.store.jet.tracer, SPAN, session.id, session.uid) as span:
            looked = _Sums()
            try:
                async for checked in checks:
                    looked.add(checked)
                    self._take(checked, session.id, placed=placed)
                    await self._go_on()
            except Rejected as error:
                span.fail(error)
                self._find(session.id, WHOLE, error)
            except (Unavailable, NoSpace) as error:
                if self._is_tried_again(session.id):
                    raise
                span.fail(error)
                self._find(session.id, WHOLE, error)
            except Exception as error:  # a bug: the same session would fail again, and no other be proven
                self._find(session.id, WHOLE, _bug(error, session.id))
            span.set({CHUNKS: looked.files, BYTES: looked.size, FAULTS: looked.faults})
        self._failures = ("", 0)
        self._measure(began)

    def _take(self, checked: Checked, name: str, *, placed: bool) -> None:
        self._count(checked, name, placed=placed)
        if checked.gone:
            self.progress.close_unseen(
                lambda one: one.session == name and one.place.startswith((SOURCE, WHOLE))
            )

    def _is_tried_again(self, name: str) -> bool:
        """Whether an outage breaks off the pass here, for now."""
        self._failures = (name, self._failures[1] + 1 if self._failures[0] == name else 1)
        return self._failures[1] < TRIES

    async def _loaded(self, name: str) -> Session | None:
        """The session, as its log says; None: its log cannot be read, which is a finding."""
        try:
            session = await self.store.log.load(name)
        except Rejected as error:
            self._find(name, LOG, error)
            return None
        self.progress.mend(name, LOG)
        return session

    async def _drop_destroyed(self) -> None:
        """End the alarms of sessions that were destroyed since."""
        for name in {one.session for one in self.progress.state.alarms if one.session}:
            with suppress(Rejected):
                session = await self.store.log.load(name)
                if session.created is not None and session.destroy is not None:
                    self.progress.drop(name)

    # streams

    async def _stream(self, stream: str) -> None:
        progress = self.progress
        began, places = self._begun(), places_of(stream)
        self.streams.chain = progress.state.chain
        try:
            async for session, checked in self.streams.check(stream):
                self._count(checked, session, placed=False)
                await self._go_on()
            progress.close_unseen(lambda one: one.place in places)
        except Rejected as error:
            self._find("", places[0], error)
        except LucidError:
            raise  # an outage: the stream is read again
        except Exception as error:
            self._find("", places[0], _bug(error, stream))
        progress.leave_stream(stream, self.streams.chain)
        self._measure(began)

    # findings and costs

    def _count(self, checked: Checked, session: str, *, placed: bool) -> None:
        told = self.progress.count(checked, session, placed=placed)
        if told is not None:
            self.report.log_one(session, told)

    def _find(self, session: str, place: str, error: LucidError) -> None:
        fault = Fault(place, error.code, error.message, "alarm")
        self._count(Checked(0, 0, 0, fault, place), session, placed=False)

    def _begun(self, session: str = "") -> tuple[float, int, int, int]:
        """The clocks at the begin of a look. session: the pass has come to it."""
        self.progress.begin_look(session)
        pace = self.sessions.pace
        return time.monotonic(), pace.cpu_us, pace.waited_us, pace.paced_us

    def _measure(self, began: tuple[float, int, int, int]) -> None:
        began_s, cpu_us, waited_us, paced_us = began
        pace = self.sessions.pace
        waited_us = pace.waited_us - waited_us
        idle_us = waited_us + pace.paced_us - paced_us
        busy_us = max(round((time.monotonic() - began_s) * 1e6) - idle_us, 0)
        self.progress.measure(pace.cpu_us - cpu_us, busy_us, waited_us)


def _bug(error: Exception, of: str) -> LucidError:
    """Log an error of our own, and return it as a finding."""
    log.exception("scrub_failed", of=of)
    return LucidError(f"its check failed inside: {error!r}"[:300], code="scrub.bug")


def _has_no_seal(session: Session) -> bool:
    return session.created is not None and not session.sealed and session.destroy is None
