"""Keeps the state of the scrub: the place of its pass, its counts, findings and alarms, and writes it down.

1. `checkpoint` writes at most every CHECKPOINT_S. After a kill the files since then are checked once more.
2. The state never claims more than was checked: a session counts when its last file was.
3. A repair is written down before it begins. After a kill in its middle the file may be good already: the
   next check of that file then tells of the repair, once.
4. A state that cannot be read begins anew, with an alarm: the alarms of before are forgotten until the end of
   a pass that has looked at everything again.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from handlers.evidence import alarms as lists
from schemas.config.logs import logger
from schemas.errors import EvidenceFalse, LucidError
from schemas.events.scrub import (
    FAILED_MOST,
    FINDINGS_KEPT,
    MARKS_MOST,
    RUNNING_MOST,
    Alarm,
    ChainMark,
    Finding,
    Mark,
    Pass,
    Place,
    ScrubState,
    read_state,
)
from schemas.ports.scrub_place import ScrubPlace
from streams.evidence.scrub_state_file import StateFile
from streams.evidence.session_proof import Checked, Fault
from streams.scheduling.clock import Clock

CHECKPOINT_S = 5.0
STATE = "state of the scrub"
"""The place of the alarm about the state itself."""

log = logger("lucid.scrub")


@dataclass(slots=True)
class ScrubProgress:
    """The state of one process. Used from one event loop."""

    place: ScrubPlace
    clock_us: Clock
    state: ScrubState = field(default_factory=ScrubState)
    _written_s: float = 0.0
    _file: StateFile = field(init=False)
    _seen: set[tuple[str, str]] = field(default_factory=set)
    """Session and place of the alarms of the present look."""

    def __post_init__(self) -> None:
        self._file = StateFile(self.place, lambda: self.state)

    async def load(self, is_wanted: Callable[[], bool] = lambda: True) -> None:
        """Take over the state that was written last. One that cannot be read begins anew.

        is_wanted: asked once it is read. A process that owns the file by then has a newer state.
        """
        raw = await asyncio.to_thread(self.place.read)
        if not is_wanted():
            return
        try:
            self.state = read_state(raw) if raw is not None else ScrubState()
        except EvidenceFalse as error:
            log.error("scrub_state_unreadable", error=error)
            self.state = ScrubState()
            self._alarm("", Fault(STATE, error.code, error.message, "alarm"))
        if not self.state.first_us:
            self._change(first_us=self.clock_us())

    async def checkpoint(self, *, now: bool = False) -> None:
        """Write the state, if the last time was long ago. A failure is tried again later."""
        if not now and time.monotonic() < self._written_s + CHECKPOINT_S:
            return
        try:
            await self.write()
        except LucidError as error:
            log.warning("scrub_state_unwritten", error=error)

    async def write(self) -> None:
        """Return when the state is durable. Raises Unavailable, NoSpace (scrub.state)."""
        self._written_s = time.monotonic()
        await self._file.write()

    async def release(self) -> None:
        """Let another process become the owner: this one writes no more."""
        await self._file.release()

    # the streams

    def keep_end(self, stream: str, seq: int, time_us: int) -> None:
        """A stream ends with this message. time_us: of the server; 0: unknown."""
        state = self.state
        if (state.ends.get(stream, 0), state.end_times.get(stream, 0)) != (seq, time_us):
            self._change(ends={**state.ends, stream: seq}, end_times={**state.end_times, stream: time_us})

    def leave_stream(self, stream: str, chain: ChainMark | None = None) -> None:
        """The stream was read to its end."""
        place = self.state.place
        self._change(place=place.model_copy(update={"streams": (*place.streams, stream)}))
        if chain is not None:
            self._change(chain=chain)

    # the pass

    @property
    def is_open(self) -> bool:
        """Whether a pass was begun and has not ended."""
        return self.state.current.began_us > 0 and self.state.current.ended_us == 0

    def begin(self, running: tuple[str, ...]) -> None:
        """Begin a pass, unless one is open. running: the sessions without a seal."""
        if self.is_open:
            return
        number, now_us = self.state.current.number + 1, self.clock_us()
        begun = Pass(number=number, began_us=now_us, running=running[:RUNNING_MOST])
        self._change(current=begun, place=Place())

    def end(self) -> None:
        """End the pass. It has looked at everything: an acknowledged alarm that it did not find has ended."""
        now = self.state.current
        ended = now.model_copy(update={"ended_us": self.clock_us(), "running": ()})
        self._change(current=ended, last=ended, place=Place(), alarms_more=now.alarms_more)
        self._close(lambda one: one.number < now.number and (one.acknowledged_us > 0 or one.place == STATE))

    def passed(self, session: str) -> None:
        """A session that had no seal at the begin of the pass was checked."""
        current = self.state.current
        left = tuple(name for name in current.running if name != session)
        self._change(current=current.model_copy(update={"running": left}))

    def mark(self, number: int, position: int, at_us: int) -> None:
        """From this session on, the pass works by a list that was complete at `position`, read at `at_us`."""
        marks = (*self.state.current.marks, Mark(number=number, position=position, at_us=at_us))
        if len(marks) > MARKS_MOST:
            marks = marks[::2]  # of each pair the earlier one stays: claims become older, never newer
        self._change(current=self.state.current.model_copy(update={"marks": marks}))

    def enter(self, session: str, seal_no: int) -> Place:
        """Begin with a sealed session. Returns the place in it: a restart goes on there."""
        place = self.state.place
        if (place.session, place.seal_no) != (session, seal_no):
            place = Place(number=place.number, session=session, seal_no=seal_no, streams=place.streams)
            self._change(place=place)
        return place

    def leave(self, number: int) -> None:
        """The session was checked to its end."""
        current, place = self.state.current, self.state.place
        self._change(
            current=current.model_copy(update={"sessions": current.sessions + 1}),
            place=Place(number=max(number, place.number), streams=place.streams),
        )

    def count(self, checked: Checked, session: str, *, placed: bool) -> Fault | None:
        """Count one look. placed: it belongs to the sealed session that was entered.

        Returns the fault that is to be told: that of the look, or a repair before a kill.
        """
        current, fault = self.state.current, checked.fault
        open_one = lists.find(self.state.alarms, session, checked.place) if checked.place else None
        if fault is None and open_one is not None and open_one.repairing:
            text = f"{open_one.text}; restored from its source"
            fault = Fault(open_one.place, open_one.code, text, "repaired")
        changes: dict[str, Any] = {
            "chunks": current.chunks + checked.files,
            "fragments": current.fragments + checked.fragments,
            "messages": current.messages + checked.messages,
            "bytes": current.bytes + checked.size,
        }
        if fault is not None:
            repaired = fault.outcome == "repaired"
            changes |= {
                "repaired": current.repaired + repaired,
                "alarms": current.alarms + (not repaired),
                **({} if repaired or not session else _failed(current, session, fault)),
            }
        self._change(current=current.model_copy(update=changes))
        if fault is not None:
            self.find(session, fault)
        if fault is not None and fault.outcome == "alarm":
            self._alarm(session, fault)
        elif checked.place:
            self.mend(session, checked.place)
        if placed:
            place = self.state.place
            at = {"index": place.index + checked.files, "source": max(place.source, checked.source)}
            self._change(place=place.model_copy(update=at))
        return fault

    # alarms

    async def intend(self, session: str, fault: Fault) -> None:
        """Write down that a repair begins."""
        self._alarm(session, fault, repairing=True)
        await self.checkpoint(now=True)

    def mend(self, session: str, place: str) -> None:
        """The place is good."""
        self._close(lambda one: (one.session, one.place) == (session, place))

    def begin_look(self, session: str = "") -> None:
        """A session, or a stream, is looked at to its end.

        session: the pass has come to it. If it goes on in the source, it has seen its alarms of before.
        """
        state = self.state
        goes_on = session and state.place.source > 0
        self._seen = lists.places_in(state.alarms, session, state.current.number) if goes_on else set()

    def close_unseen(self, looked_at: Callable[[Alarm], bool]) -> None:
        """Close the alarms of places that were looked at, but those that the present look has found."""
        self._close(lambda one: looked_at(one) and (one.session, one.place) not in self._seen)

    def close_older(self, place: str) -> None:
        """This pass has not found the alarm of the platform at a place: it has ended."""
        number = self.state.current.number
        self._close(lambda one: (one.session, one.place) == ("", place) and one.number < number)

    def drop(self, session: str) -> None:
        """The session is destroyed: nothing of it can be damaged."""
        self._close(lambda one: one.session == session)

    def acknowledge(self, session: str, who: str) -> int:
        """Acknowledge the alarms of a session, or those of streams. Returns how many the call changed."""
        before = lists.sounding(self.state.alarms)
        self._change(alarms=lists.acknowledged(self.state.alarms, session, who, self.clock_us()))
        return before - lists.sounding(self.state.alarms)

    def note(self, alarm: Alarm) -> None:
        """The alarm is in the audit chain."""
        self._change(alarms=lists.noted(self.state.alarms, alarm))

    def _alarm(self, session: str, fault: Fault, *, repairing: bool = False) -> None:
        now_us = self.clock_us()
        self._seen.add((session, fault.place))
        found = Alarm(
            session=session,
            place=fault.place,
            code=fault.code,
            text=fault.text[:300],
            since_us=now_us,
            at_us=now_us,
            number=self.state.current.number,
            repairing=repairing,
        )
        alarms = lists.raised(self.state.alarms, found)
        self._change(alarms=alarms)
        if lists.find(alarms, session, fault.place) is None:  # no room
            current = self.state.current.model_copy(update={"alarms_more": True})
            self._change(current=current, alarms_more=True)

    def _close(self, ended: Callable[[Alarm], bool]) -> None:
        left = lists.closed(self.state.alarms, ended)
        if len(left) < len(self.state.alarms):
            self._change(alarms=left)

    def find(self, session: str, fault: Fault) -> None:
        """Keep a finding. One that repeats the newest of its place replaces it."""
        found = Finding(
            at_us=self.clock_us(),
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
