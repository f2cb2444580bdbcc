"""Keeps the state of the scrub: the place of its pass, its counts and findings, and writes it down.

1. `checkpoint` writes at most every CHECKPOINT_S. After a kill the files since then are checked once more.
2. The state never claims more than was checked: a session counts when its last file was.
"""

import asyncio
import time
from typing import Any

from pydantic import ValidationError

from schemas.config.logs import logger
from schemas.errors import LucidError
from schemas.events.scrub import (
    FAILED_MOST,
    FINDINGS_KEPT,
    MARKS_MOST,
    Finding,
    Mark,
    Pass,
    Place,
    ScrubState,
)
from schemas.ports.metrics import Meter
from schemas.ports.scrub_place import ScrubPlace
from streams.evidence.session_proof import Checked, Fault
from streams.scheduling.clock import Clock

CHECKPOINT_S = 5.0

log = logger("lucid.scrub")


class ScrubProgress:
    """The state of one process. Used from one event loop."""

    def __init__(self, place: ScrubPlace, clock_us: Clock) -> None:
        self._place, self._clock_us = place, clock_us
        self.state = ScrubState()
        self._written_s = 0.0

    async def load(self) -> None:
        """Take over the state that was written last. One that cannot be read begins anew."""
        raw = await asyncio.to_thread(self._place.read)
        try:
            self.state = ScrubState.model_validate_json(raw) if raw else ScrubState()
        except ValidationError as error:
            log.error("scrub_state_unreadable", error=str(error.errors()[0]["msg"]))
            self.state = ScrubState()

    async def checkpoint(self, *, now: bool = False) -> None:
        """Write the state, if the last time was long ago. A failure is tried again later."""
        if not now and time.monotonic() < self._written_s + CHECKPOINT_S:
            return
        self._written_s = time.monotonic()
        body = self.state.model_dump_json().encode()
        try:
            await asyncio.to_thread(self._place.write, body)
        except LucidError as error:
            log.warning("scrub_state_unwritten", error=error)

    # the pass

    @property
    def is_open(self) -> bool:
        """Whether a pass was begun and has not ended."""
        return self.state.current.began_us > 0 and self.state.current.ended_us == 0

    def begin(self) -> None:
        """Begin a pass, unless one is open."""
        if self.is_open:
            return
        number, now_us = self.state.current.number + 1, self._clock_us()
        self._change(current=Pass(number=number, began_us=now_us), place=Place())

    def end(self) -> None:
        """End the pass."""
        ended = self.state.current.model_copy(update={"ended_us": self._clock_us()})
        self._change(current=ended, last=ended, place=Place())

    def mark(self, number: int, position: int, at_us: int) -> None:
        """From this session on, the pass works by a list that was complete at `position`, read at `at_us`."""
        marks = (*self.state.current.marks, Mark(number=number, position=position, at_us=at_us))
        if len(marks) > MARKS_MOST:
            marks = marks[::2]  # of each pair the earlier one stays: claims become older, never newer
        self._change(current=self.state.current.model_copy(update={"marks": marks}))

    def enter(self, session: str, seal_no: int) -> int:
        """Begin with a sealed session. Returns how many files of it were checked before a restart."""
        place = self.state.place
        if (place.session, place.seal_no) == (session, seal_no):
            return place.index
        self._change(place=Place(number=place.number, session=session, seal_no=seal_no))
        return 0

    def leave(self, number: int) -> None:
        """The session was checked to its end."""
        current = self.state.current
        self._change(
            current=current.model_copy(update={"sessions": current.sessions + 1}),
            place=Place(number=max(number, self.state.place.number)),
        )

    def count(self, checked: Checked, session: str, *, placed: bool) -> None:
        """Count one look. placed: it belongs to the sealed session that was entered."""
        current, fault = self.state.current, checked.fault
        changes: dict[str, Any] = {
            "chunks": current.chunks + checked.files,
            "fragments": current.fragments + checked.fragments,
            "bytes": current.bytes + checked.size,
        }
        if fault is not None:
            repaired = fault.outcome == "repaired"
            changes |= {
                "repaired": current.repaired + repaired,
                "alarms": current.alarms + (not repaired),
                **({} if repaired else _failed(current, session, fault)),
            }
            self.find(session, fault)
        self._change(current=current.model_copy(update=changes))
        if placed and checked.files:
            place = self.state.place
            self._change(place=place.model_copy(update={"index": place.index + checked.files}))

    def find(self, session: str, fault: Fault) -> None:
        """Keep a finding. One that repeats the newest of its place replaces it."""
        found = Finding(
            at_us=self._clock_us(),
            session=session,
            place=fault.place,
            code=fault.code,
            text=fault.text[:300],
            outcome=fault.outcome,
        )
        others = [
            one
            for one in self.state.findings
            if (one.session, one.place, one.outcome) != (session, fault.place, fault.outcome)
        ]
        self._change(findings=(*others, found)[-FINDINGS_KEPT:])

    def measure(self, cpu_us: int, busy_us: int, waited_us: int) -> None:
        """Add to the costs of the pass."""
        current = self.state.current
        changes = {
            "cpu_us": current.cpu_us + cpu_us,
            "busy_us": current.busy_us + busy_us,
            "waited_us": current.waited_us + waited_us,
        }
        self._change(current=current.model_copy(update=changes))

    def _change(self, **changes: Any) -> None:
        self.state = self.state.model_copy(update=changes)


def _failed(current: Pass, session: str, fault: Fault) -> dict[str, Any]:
    if session in current.failed or len(current.failed) < FAILED_MOST:
        return {"failed": {**current.failed, session: fault.code}}
    return {"failed_more": True}


def measure_pass(meter: Meter, progress: ScrubProgress) -> None:
    """Show the counts of the current pass, and the end of the last one."""

    def of_pass(name: str) -> Any:
        return lambda: float(getattr(progress.state.current, name))

    meter.value("lucid_scrub_pass_bytes", "Bytes that this pass of the scrub has read.", of_pass("bytes"))
    meter.value("lucid_scrub_pass_files", "Stored files that this pass has checked.", of_pass("chunks"))
    meter.value("lucid_scrub_pass_alarms", "Findings of this pass that it cannot repair.", of_pass("alarms"))
    meter.value("lucid_scrub_pass_repairs", "Files that this pass has restored.", of_pass("repaired"))
    meter.value(
        "lucid_scrub_ended_timestamp_seconds",
        "End of the last whole pass of the scrub; 0: there was none.",
        lambda: progress.state.last.ended_us / 1e6 if progress.state.last else 0.0,
    )
