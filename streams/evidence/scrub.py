"""The scrub: proves every session again, pass after pass, slowly, and repairs or reports damaged files.

1. One process owns the scrub of a data folder, by a lock that ends with it. Others wait for the lock.
2. After a kill the next owner goes on from the last checkpoint (scrub_progress.py).
3. Sealed sessions are checked in the order of their creation, then those without a seal.
4. A finding is written into the state, the log and the audit chain. A repaired file is no alarm.
5. An outage (Unavailable, NoSpace) breaks off nothing: the same session is tried again. A session that cannot
   be read (Rejected) is a finding, and the pass goes on: it keeps no other from being proven.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from handlers.lifecycle.session import Session
from schemas.access import Caller
from schemas.config.logs import logger
from schemas.errors import EvidenceFalse, LucidError, RefusedByState, Rejected, Unavailable
from schemas.events.scrub import Pass
from schemas.ports import Views
from schemas.ports.metrics import Meter
from schemas.ports.read_models import Place, SessionFilter, SessionQuery
from schemas.ports.scrub_place import ScrubPlace
from schemas.subjects import ALL_LIFECYCLE, LIFECYCLE
from schemas.telemetry.span_facts import BYTES, CHUNKS, FAULTS
from streams.event_store.audit_log import AuditLog
from streams.event_store.event_store import EventStore
from streams.evidence.evidence_store import EvidenceStore
from streams.evidence.proof_spans import session_span
from streams.evidence.scrub_pace import ScrubPace
from streams.evidence.scrub_progress import ScrubProgress, measure_pass
from streams.evidence.session_proof import Checked, Fault, SessionProof
from streams.keys.keystore import KeyStore
from streams.scheduling.clock import Clock, now_us
from streams.scheduling.threads import Threads, be_nice

BEGIN_S = 60.0
"""A system that starts has other work first."""
OWNER_S = 10.0
"""How often a process asks for the lock that another one holds."""
GAP_S = 6 * 3600.0
"""The least time from the beginning of one pass to that of the next."""
RETRY_S = 5.0
LIST_S = 0.2
"""The pause while the read models lack events of the log."""
PAGE = 200
SHOWN_FINDINGS = 20
WISHES_MOST = 100
SPAN = "prove session"
SCRUB, ACTION = Caller("scrub", frozenset()), "proof_failed"

log = logger("lucid.scrub")


@dataclass(frozen=True, slots=True)
class ScrubParts:
    """The parts of a scrub. bytes_per_s 0: there is none."""

    store: EventStore
    evidence: EvidenceStore
    keys: KeyStore
    views: Views
    audit: AuditLog
    place: ScrubPlace
    meter: Meter
    bytes_per_s: float
    clock_us: Clock = now_us


class Scrub:
    """Runs until cancelled. Used from one event loop."""

    def __init__(self, parts: ScrubParts) -> None:
        self._parts = parts
        self._pace = ScrubPace(parts.store.jet, max(parts.bytes_per_s, 1.0))
        self._progress = ScrubProgress(parts.place, parts.clock_us)
        self._is_owner = False
        self._wished: list[str] = []
        """Sessions that somebody asked to be checked next."""
        self._checked: deque[str] = deque(maxlen=WISHES_MOST)
        """The last of them that were."""
        self._forced = False
        self._wake = asyncio.Event()
        measure_pass(parts.meter, self._progress)

    # for others

    async def asked(self, session: str, *, now: bool) -> dict[str, Any]:
        """The state, for people. session: check it next. now: begin a pass, unless one is under way.

        Raises RefusedByState (scrub.off), Unavailable (scrub.elsewhere): nobody here can check.
        """
        if session or now:
            self._require_owner()
        if not self._is_owner:
            await self._progress.load()  # as its owner wrote it last
        self._forced = self._forced or now
        if session and session not in self._wished and len(self._wished) < WISHES_MOST:
            self._wished.append(session)
        if session or now:
            self._wake.set()
        state = self._progress.state
        return {
            "now_us": self._parts.clock_us(),
            "owner": self._is_owner,
            "bytes_per_s": self._parts.bytes_per_s,
            "running": self._progress.is_open,
            "pass": _shown(state.current),
            "last": _shown(state.last) if state.last else None,
            "at": {"session": state.place.session, "files": state.place.index},
            "findings": [one.model_dump() for one in reversed(state.findings[-SHOWN_FINDINGS:])],
            "waiting": list(self._wished),
            "checked": list(self._checked),
        }

    def _require_owner(self) -> None:
        if not self._parts.bytes_per_s:
            raise RefusedByState(
                "the scrub is off", code="scrub.off", hint="set SCRUB_MB_PER_S, and start the system again"
            )
        if not self._is_owner:
            raise Unavailable(
                "another process scrubs this data folder",
                code="scrub.elsewhere",
                hint="ask that one, or end it: the scrub then goes on here",
            )

    # the service

    async def run(self) -> None:
        """Scrub until cancelled. Without a rate it ends at once."""
        parts = self._parts
        if not parts.bytes_per_s:
            return
        disk, threads = ThreadPoolExecutor(1, "lucid-scrub", be_nice), Threads()
        try:
            await self._owned()
            store = parts.store
            proof = SessionProof(
                store.log, store.recordings, parts.evidence, parts.keys, self._pace, threads, disk
            )
            await self._rest(BEGIN_S)
            while True:
                try:
                    await self._work(proof)
                except LucidError as error:
                    log.warning("scrub_waits", error=error)
                    await asyncio.sleep(RETRY_S)
                except Exception:
                    log.exception("scrub_failed")
                    await asyncio.sleep(GAP_S)  # a bug: the same place would fail again at once
        finally:
            self._is_owner = False
            disk.shutdown(wait=True, cancel_futures=True)
            threads.shut()
            parts.place.release()

    async def _owned(self) -> None:
        """Return when this process owns the scrub, with its state."""
        while True:
            try:
                if await asyncio.to_thread(self._parts.place.take):
                    await self._progress.load()
                    self._is_owner = True
                    return
            except LucidError as error:
                log.warning("scrub_waits", error=error)
            await asyncio.sleep(OWNER_S)

    async def _work(self, proof: SessionProof) -> None:
        """Carry out all that is due, then rest until more is."""
        await self._wishes(proof)
        progress = self._progress
        due_s = GAP_S - (self._parts.clock_us() - progress.state.current.began_us) / 1e6
        if self._forced or progress.is_open or due_s <= 0:
            self._forced = False
            await self._one_pass(proof)
        else:
            await self._rest(due_s)

    async def _rest(self, pause_s: float) -> None:
        try:
            async with asyncio.timeout(pause_s):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _one_pass(self, proof: SessionProof) -> None:
        progress = self._progress
        progress.begin()
        await progress.checkpoint(now=True)
        log.info("scrub_began", number=progress.state.current.number, after=progress.state.place.number)
        async for name in self._sealed_after(progress.state.place.number):
            await self._sealed(proof, name)
            await self._wishes(proof)
        for session in self._parts.store.directory.sessions():
            if session.created is not None and not session.sealed and session.destroy is None:
                await self._look_at(proof.running(session), session, placed=False)
                await self._wishes(proof)
        progress.end()
        await progress.checkpoint(now=True)
        ended = progress.state.current
        log.info("scrub_ended", number=ended.number, sessions=ended.sessions, chunks=ended.chunks,
                 bytes=ended.bytes, repaired=ended.repaired, alarms=ended.alarms)  # fmt: skip

    async def _sealed_after(self, number: int) -> AsyncIterator[str]:
        """The names of sealed sessions in the order of their creation, from the read models."""
        while True:
            at_us = self._parts.clock_us()
            newest = await self._parts.store.jet.last(LIFECYCLE, ALL_LIFECYCLE)
            end = newest.seq if newest else 0
            after = Place(number, number) if number else None
            query = SessionQuery(SessionFilter(sealed=True), descending=False, after=after, limit=PAGE)
            documents, generation = await self._parts.views.sessions(query)
            while generation.position < end:  # the list lacks events: it may lack a sealed session
                await asyncio.sleep(LIST_S)
                documents, generation = await self._parts.views.sessions(query)
            resumed = bool(documents) and documents[0].session == self._progress.state.place.session
            # The check of a session that goes on after a restart has begun under an earlier mark.
            self._progress.mark(documents[0].number + 1 if resumed else number + 1, end, at_us)
            for one in documents:
                yield one.session
            if len(documents) < PAGE:
                return
            number = documents[-1].number

    async def _sealed(self, proof: SessionProof, name: str) -> None:
        """Check one sealed session, as its log says now, and write down that it was."""
        session = await self._loaded(name)
        if session is None:
            self._progress.leave(0)
        elif session.created is not None and session.sealed and session.destroy is None:
            first = self._progress.enter(name, session.seals[-1].seal_no)
            await self._look_at(proof.sealed(session, first), session, placed=True)
            self._progress.leave(session.first_seq)
            await self._progress.checkpoint()

    async def _wishes(self, proof: SessionProof) -> None:
        """Check the sessions that somebody asked for. They do not move the place of the pass."""
        while self._wished:
            session = await self._loaded(self._wished[0])
            if session is not None and session.created is not None and session.destroy is None:
                checks = proof.sealed(session, 0) if session.sealed else proof.running(session)
                await self._look_at(checks, session, placed=False)
                await self._progress.checkpoint(now=True)
                self._checked.append(session.id)
            self._wished.pop(0)

    async def _look_at(self, checks: AsyncIterator[Checked], session: Session, *, placed: bool) -> None:
        progress, pace = self._progress, self._pace
        began_s, idle_us = time.monotonic(), pace.paced_us + pace.waited_us
        cpu_us, waited_us = pace.cpu_us, pace.waited_us
        with session_span(self._parts.store.jet.tracer, SPAN, session.id, session.uid) as span:
            files = size = faults = 0
            try:
                async for checked in checks:
                    progress.count(checked, session.id, placed=placed)
                    files, size = files + checked.files, size + checked.size
                    if checked.fault is not None:
                        faults += 1
                        self._report(session.id, checked.fault)
                    await progress.checkpoint()
            except Rejected as error:
                span.fail(error)
                self._find(session.id, error)
            span.set({CHUNKS: files, BYTES: size, FAULTS: faults})
        idle_us = pace.paced_us + pace.waited_us - idle_us
        busy_us = max(round((time.monotonic() - began_s) * 1e6) - idle_us, 0)
        progress.measure(pace.cpu_us - cpu_us, busy_us, pace.waited_us - waited_us)

    async def _loaded(self, name: str) -> Session | None:
        """The session, as its log says; None: its log cannot be read, which is a finding."""
        try:
            return await self._parts.store.log.load(name)
        except Rejected as error:
            self._find(name, error)
            return None

    def _find(self, session: str, error: Rejected) -> None:
        fault = Fault("log", error.code, error.message, "alarm")
        self._progress.count(Checked(0, 0, 0, fault), session, placed=False)
        self._report(session, fault)

    def _report(self, session: str, fault: Fault) -> None:
        members = {"session": session, "place": fault.place, "code": fault.code}
        if fault.outcome == "repaired":
            log.warning("proof_repaired", **members)
            return
        log.error("proof_failed", **members, why=fault.text[:300])
        self._parts.audit.note(SCRUB, ACTION, session, EvidenceFalse(fault.text, code=fault.code))


def _shown(one: Pass) -> dict[str, Any]:
    return one.model_dump(exclude={"marks"})
