"""Tells of the findings of the scrub: in the log, in the audit chain, and in the answers to commands.

1. An alarm is in the state first. Then it is written into the audit chain, and then marked as noted.
2. After a kill between the two, the chain is searched for it: it is neither lost nor doubled there.
3. A chain that takes no entry is asked again after a pause, at most ten minutes: it holds up no pass. The
   search for all alarms together is one, and a short one if this process has searched before.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from handlers.evidence.alarms import sounding
from schemas.access import Caller
from schemas.config.backoff import Backoff
from schemas.config.logs import logger
from schemas.errors import EvidenceFalse, LucidError
from schemas.events.audit import plain_text
from schemas.events.scrub import Alarm, Pass
from streams.event_store.audit_log import AuditLog
from streams.event_store.audit_pages import AuditQuery, page
from streams.evidence.scrub_pace import ScrubPace
from streams.evidence.scrub_progress import ScrubProgress
from streams.evidence.session_proof import Fault
from streams.scheduling.clock import Clock

SHOWN_FINDINGS, SHOWN_ALARMS = 20, 100
SCRUB, ACTION = Caller("scrub", frozenset()), "proof_failed"
SEARCHED_PAGES, SEARCHED_AGAIN = 20, 3
"""Pages of the audit chain that are searched after a kill; after a failure of this process."""
PAUSES = Backoff(5.0, 600.0)
"""Between two tries to write into the chain."""

Key = tuple[str, str, str]
"""Session, code and text of an entry."""

log = logger("lucid.scrub")


@dataclass(slots=True)
class ScrubReport:
    """One for each scrub."""

    progress: ScrubProgress
    audit: AuditLog
    clock_us: Clock
    _is_sure: bool = False
    """Alarms that are not noted are not in the chain: this process found them."""
    _pages: int = SEARCHED_PAGES
    """Of the next search."""
    _failures: int = 0
    """Since the chain took an entry."""
    _due_s: float = 0.0

    def log_one(self, session: str, fault: Fault) -> None:
        """Write one finding into the log of the service."""
        members = {"session": session, "place": fault.place, "code": fault.code}
        if fault.outcome == "repaired":
            log.warning("proof_repaired", **members)
        else:
            log.error("proof_failed", **members, why=fault.text[:300])

    async def note(self) -> None:
        """Write alarms that are new into the audit chain. An entry that the chain refuses is tried again."""
        new = [one for one in self.progress.state.alarms if not one.noted and not one.repairing]
        if not new:
            self._is_sure = True
            return
        if time.monotonic() < self._due_s:
            return
        await self.progress.checkpoint(now=True)
        try:
            noted = {} if self._is_sure else await self._noted(new)
            for alarm in new:
                if noted.get(_key(alarm), -1) < alarm.since_us:
                    error = EvidenceFalse(_detail(alarm), code=alarm.code)
                    await self.audit.noted(SCRUB, ACTION, alarm.session, error)
                self.progress.note(alarm)
        except LucidError as error:
            log.warning("scrub_alarm_not_noted", error=error)
            self._is_sure = False  # the chain may have it all the same
            self._failures += 1
            self._due_s = time.monotonic() + PAUSES.delay_s(self._failures)
        else:
            self._is_sure, self._failures = True, 0
        await self.progress.checkpoint(now=True)

    async def _noted(self, new: Sequence[Alarm]) -> dict[Key, int]:
        """The alarms in the chain and the time of each, since the first of these was found."""
        found: dict[Key, int] = {}
        query = AuditQuery(
            newest_first=True, limit=500, action=ACTION, since_us=min(one.since_us for one in new)
        )
        for _ in range(self._pages):
            answer = await page(self.audit.jet, query)
            for one in answer["entries"]:
                found.setdefault((one["session"], one["code"], one["detail"]), one["at_us"])
            if not answer["next"]:
                break
            query = query.model_copy(update={"after": answer["next"]})
        self._pages = SEARCHED_AGAIN  # an entry of this process is among the newest ones
        return found

    def shown(self, pace: ScrubPace) -> dict[str, Any]:
        """The state, for people."""
        state = self.progress.state
        alarms = sorted(state.alarms, key=lambda one: (one.acknowledged_us > 0, -one.at_us))
        return {
            "now_us": self.clock_us(),
            "running": self.progress.is_open,
            "behind_s": round(pace.behind_s, 1) if self.progress.is_open else 0.0,
            "pass": _shown(state.current),
            "last": _shown(state.last) if state.last else None,
            "at": {"session": state.place.session, "files": state.place.index},
            "alarms": [one.model_dump(exclude={"noted"}) for one in alarms[:SHOWN_ALARMS]],
            "alarms_in_all": len(state.alarms),
            "sounding": sounding(state.alarms) + state.alarms_more,
            "alarms_more": state.alarms_more,
            "findings": [one.model_dump() for one in reversed(state.findings[-SHOWN_FINDINGS:])],
        }


def _key(alarm: Alarm) -> Key:
    return alarm.session, alarm.code, plain_text(_detail(alarm))


def _detail(alarm: Alarm) -> str:
    return f"{alarm.place}: {alarm.text}"


def _shown(one: Pass) -> dict[str, Any]:
    return one.model_dump(exclude={"marks", "running"})
