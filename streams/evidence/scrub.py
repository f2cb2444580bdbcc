"""The scrub: proves every session again, pass after pass, slowly, and repairs or reports damaged files.

1. One process owns the scrub of a data folder, by a lock that ends with it. Others wait for the lock.
2. After a kill the next owner goes on from the last checkpoint (scrub_progress.py).
3. A pass checks sealed sessions in the order of their creation. Sessions without a seal follow, and then the
   streams (scrub_pass.py).
4. A finding is written into the state, the log and the audit chain. A repaired file is no alarm.
5. An outage (Unavailable, NoSpace) breaks off nothing: the same session is tried again, a few times. Then it
   is a finding, as a session is that cannot be read (Rejected). The pass goes on: one session keeps no other
   from being proven.
"""

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from schemas.config.logs import logger
from schemas.errors import Busy, LucidError, RefusedByState, Unavailable
from schemas.ports import Signers, Views
from schemas.ports.metrics import Meter
from schemas.ports.scrub_place import ScrubPlace
from streams.event_store.audit_log import AuditLog
from streams.event_store.event_store import EventStore
from streams.evidence.evidence_store import EvidenceStore
from streams.evidence.scrub_metrics import measure_scrub
from streams.evidence.scrub_pace import ScrubPace
from streams.evidence.scrub_pass import ScrubPass
from streams.evidence.scrub_progress import ScrubProgress
from streams.evidence.scrub_report import ScrubReport
from streams.evidence.session_proof import SessionProof
from streams.evidence.stream_ends import WATCH_S, StreamEnds
from streams.evidence.stream_proof import StreamProof
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
WISHES_MOST = 100

log = logger("lucid.scrub")


@dataclass(frozen=True, slots=True)
class ScrubParts:
    """The parts of a scrub. bytes_per_s 0: there is none."""

    store: EventStore
    evidence: EvidenceStore
    keys: KeyStore
    signers: Signers
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
        self._report = ScrubReport(self._progress, parts.audit, parts.clock_us)
        self._is_owner = False
        self._wished: list[str] = []
        """Sessions that somebody asked to be checked next."""
        self._checked: deque[str] = deque(maxlen=WISHES_MOST)
        """The last of them that were."""
        self._forced = False
        self._wake = asyncio.Event()
        measure_scrub(parts.meter, self._progress, self._pace)

    # for others

    async def asked(self, session: str, *, now: bool) -> dict[str, Any]:
        """The state, for people. session: check it next. now: begin a pass, unless one is under way.

        Raises RefusedByState (scrub.off), Unavailable (scrub.elsewhere): nobody here can check.
        Raises Busy (scrub.wishes).
        """
        if session or now:
            self._require_owner()
        if not self._is_owner:
            await self._progress.load(lambda: not self._is_owner)  # as its owner wrote it last
        self._forced = self._forced or (now and not self._progress.is_open)
        if session and session not in self._wished:
            if len(self._wished) >= WISHES_MOST:
                raise Busy(
                    f"{len(self._wished)} sessions wait for their check",
                    code="scrub.wishes",
                    hint="ask again when they are checked: lucid scrub",
                )
            self._wished.append(session)
        if session or now:
            self._wake.set()
        return {
            "owner": self._is_owner,
            "bytes_per_s": self._parts.bytes_per_s,
            **self._report.shown(self._pace),
            "waiting": list(self._wished),
            "checked": list(self._checked),
        }

    async def acknowledge(self, session: str, who: str) -> dict[str, Any]:
        """Acknowledge the alarms of a session, or (empty) those of streams. A second call changes nothing.

        Raises RefusedByState (scrub.off), Unavailable (scrub.elsewhere, scrub.state), NoSpace (scrub.state).
        """
        self._require_owner()
        changed = self._progress.acknowledge(session, who)
        await self._progress.write()  # durable before it is answered
        return {**await self.asked("", now=False), "acknowledged": changed}

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
            checks = self._checks(disk, threads)
            begin_s = BEGIN_S
            while True:
                try:
                    await self._wishes(checks)
                    await checks.watch_ends()
                    await self._rest(begin_s)
                    begin_s = 0
                    await self._work(checks)
                except LucidError as error:
                    log.warning("scrub_waits", error=error)
                    await asyncio.sleep(RETRY_S)
                except Exception:
                    log.exception("scrub_failed")
                    await self._rest(GAP_S)  # a bug: the same place would fail again at once
        finally:
            self._is_owner = False
            disk.shutdown(wait=True, cancel_futures=True)
            threads.shut()
            await self._progress.release()

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

    def _checks(self, disk: ThreadPoolExecutor, threads: Threads) -> ScrubPass:
        parts, store, intend = self._parts, self._parts.store, self._progress.intend
        sessions = SessionProof(
            store.log, store.recordings, parts.evidence, parts.keys, self._pace, threads, disk, intend
        )
        streams = StreamProof(store.jet, parts.signers, self._pace, disk)
        return ScrubPass(
            store=store,
            views=parts.views,
            clock_us=parts.clock_us,
            progress=self._progress,
            report=self._report,
            sessions=sessions,
            streams=streams,
            ends=StreamEnds(store, self._progress),
            between=self._wishes,
        )

    async def _work(self, checks: ScrubPass) -> None:
        """Carry out all that is due, then rest until more is."""
        await self._wishes(checks)
        progress = self._progress
        due_s = GAP_S - (self._parts.clock_us() - progress.state.current.began_us) / 1e6
        if self._forced or progress.is_open or due_s <= 0:
            self._forced = False
            await checks.run()
        else:
            await self._rest(min(due_s, WATCH_S))

    async def _rest(self, pause_s: float) -> None:
        try:
            async with asyncio.timeout(pause_s):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _wishes(self, checks: ScrubPass) -> None:
        """Check the sessions that somebody asked for. They do not move the place of the pass."""
        while self._wished:
            name = self._wished[0]
            try:
                if await checks.wished(name):
                    self._checked.append(name)
            except LucidError:
                raise  # an outage: it is tried again
            except Exception:
                self._wished.remove(name)  # a bug: it keeps no other from being checked
                raise
            self._wished.remove(name)
