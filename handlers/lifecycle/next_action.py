"""Decides the next action of a session from its facts: one action, or none.

1. Level-triggered: it reads facts, never the last change. After a crash, a second time, or in two processes
   the answer is the same. Every action may be started again.
2. The conductor completes an action, reads the facts again and asks again, until the answer is None.
3. Pure: `now_us` comes with the facts.

Source: docs/design.md §2 (Sealing).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from handlers.lifecycle.session import Session
from schemas.events import commands
from schemas.events.commands import Command
from schemas.events.session import State

HOST_SILENT = "HOST_SILENT"
"""Reason of an ERROR that ends when the host sends again."""
HOST_RETURNED = "HOST_RETURNED"
"""Reason of the RECOVER that ends such an ERROR."""
MAX_SIZE = "max_size"
"""Reason of the STOP of a recording that has grown beyond its policy."""
NOT_IN_A_LABEL = re.compile(r"[^A-Za-z0-9_.-]")
FILLING = (State.ACTIVE, State.STOPPING)
"""States in which the host must send, unless its recording has ended."""


@dataclass(frozen=True, slots=True)
class SilenceLimits:
    """Limits for the silence of a host, seconds; 0: no limit."""

    host_silent_s: float = 60
    """Six times the interval of ticks from an idle host."""
    host_return_s: float = 7 * 86_400
    """Time from ERROR(HOST_SILENT) until the platform ends the recording."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts about one session."""

    session: Session
    now_us: int
    recorded: Mapping[int, int] = field(default_factory=dict)
    """Chunk index → stream sequence of its `recorded`."""
    stored: Mapping[int, int] = field(default_factory=dict)
    """Chunk index → stream sequence of its newest `stored`."""
    driven: Mapping[int, int] = field(default_factory=dict)
    """Chunk index → newest run that has driven it again."""
    dead: Mapping[tuple[int, int], str] = field(default_factory=dict)
    """(chunk index, run) → code of its dead letter."""
    ended_chunks: int | None = None
    """Number of chunks of the whole recording; None: it has not ended."""
    end_sent: bool = False
    """The recording holds the platform's `end` fragment."""
    final_sent: bool = False
    """The recording of an upload holds its `final`."""
    plain: int = 0
    """Plain bytes of the recorded chunks."""
    heard_us: int = 0
    """Arrival of the host's newest accepted fragment, µs; 0: none was accepted."""
    looked_us: int = 0
    """Time up to which every fragment of the recording was read, µs; 0: unknown."""

    @property
    def missing(self) -> list[int]:
        """Indices of recorded chunks that are neither stored nor lost."""
        return sorted(self.recorded.keys() - self.stored.keys() - self.session.losses.keys())

    @property
    def died(self) -> dict[int, str]:
        """Missing chunks with a dead letter in the run that drives them: index → code."""
        found = {}
        for index in self.missing:
            run = self.session.run if index < self.session.run_chunks else 0
            if (index, run) in self.dead:
                found[index] = self.dead[index, run]
        return found

    @property
    def complete(self) -> bool:
        """Whether the recording has ended and every chunk is stored or lost."""
        n = self.ended_chunks
        return n is not None and not self.missing and len(self.recorded) == n


@dataclass(frozen=True, slots=True)
class MakeKey:
    """Make the session's data key, or find the existing one; then START_COMPLETE."""


@dataclass(frozen=True, slots=True)
class Execute:
    """Execute a command. The conductor adds session, at_us, who and cause to its fields."""

    command: type[Command]
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SendEnd:
    """Publish the platform's `end` fragment to the recording."""


@dataclass(frozen=True, slots=True)
class SendFinal:
    """End an upload in place of its host, the platform itself: publish `final`, unless it is there."""


@dataclass(frozen=True, slots=True)
class Redrive:
    """Publish the claims of these chunks again, under the session's run."""

    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StartSeal:
    """Fix the input of the seal: n chunks, and `stored` up to this sequence."""

    n: int
    stored: int


@dataclass(frozen=True, slots=True)
class MakeSeal:
    """Make the seal that SealStarted has fixed: index chunks, manifest, then Sealed."""


@dataclass(frozen=True, slots=True)
class Shred:
    """Erase the key, purge the data, write the tombstone; then Shredded."""


STOP = Execute(commands.Stop, {"reason": "ended"})
Action = MakeKey | Execute | SendEnd | SendFinal | Redrive | StartSeal | MakeSeal | Shred


def evaluate(facts: Facts, limits: SilenceLimits) -> Action | None:
    """Return the next action; None: nothing, until a fact changes or a limit passes."""
    session = facts.session
    match session.state:
        case State.CLEANUP:
            # The tombstone comes first: DESTROYED without it would look finished.
            return Execute(commands.CleanupComplete) if session.shredded else Shred()
        case State.DESTROYED:
            return None if session.shredded else Shred()
        case State.STARTING:
            return MakeKey()
        case State.ACTIVE | State.PAUSING | State.PAUSED | State.STOPPING:
            return _running(facts, limits)
        case State.STOPPED:
            return MakeSeal() if session.seal_started else None
        case State.ERROR if session.destroy is not None:
            # The error was decided before the order and appended after it: the order stands.
            order = ("who", "reason", "approver", "backups_until_us")
            return Execute(commands.Cleanup, {name: getattr(session.destroy, name) for name in order})
        case State.ERROR:
            return _silent(facts, limits)
    return None


def is_idle(session: Session) -> bool:
    """Whether the session needs nothing until a person sends a command."""
    if session.finished:
        return True
    match session.state:
        case State.CREATED:
            return True
        case State.STOPPED:
            return session.seal_started is None
        case State.ERROR:
            return session.reason != HOST_SILENT and session.destroy is None
    return False


def is_expired(session: Session, now_us: int) -> bool:
    """Whether the session is to be destroyed by itself: its retention period is over, and nothing runs.

    Never an unsealed recording: its period has not begun, and a person may still RECOVER it.
    """
    at_rest = session.state in (State.CREATED, State.STOPPED, State.ERROR)
    is_over = 0 < session.retained_until_us <= now_us
    return is_over and at_rest and not session.held and session.destroy is None


def _running(facts: Facts, limits: SilenceLimits) -> Action | None:
    session = facts.session
    if not session.dek_id:
        return MakeKey()
    if session.sealed and not session.seal_started:
        return Execute(commands.StopComplete, {"reason": "sealed"})
    again = [
        index
        for index in facts.missing
        if index < session.run_chunks and facts.driven.get(index, 0) < session.run
    ]
    if again and not session.pipeline_paused:
        return Redrive(tuple(again))
    # Not before they were driven: a chunk that died in an older run was not tried in this one yet.
    for index, code in () if again else facts.died.items():
        return Execute(commands.Error, {"reason": NOT_IN_A_LABEL.sub("_", f"{code}.{index}")[:100]})
    if session.state == State.PAUSING:
        return None if facts.missing else Execute(commands.PauseComplete, {"reason": "drained"})
    if session.seal_started:
        # The seal began before an ERROR that was recovered: later facts change no byte of it.
        return MakeSeal() if session.state == State.STOPPING else STOP
    if session.end_requested and facts.ended_chunks is None:
        return None if facts.end_sent else SendEnd()
    if facts.ended_chunks is not None:
        if session.state != State.STOPPING:
            return STOP
        newest = max(facts.stored.values(), default=0)
        is_due = facts.complete and not session.pipeline_paused
        return StartSeal(facts.ended_chunks, newest) if is_due else None
    return _filling(facts, limits)


def _filling(facts: Facts, limits: SilenceLimits) -> Action | None:
    """The action while the recording goes on."""
    session, most = facts.session, facts.session.policy.max_bytes
    if most is not None and facts.plain > most and session.state in (State.ACTIVE, State.PAUSED):
        return Execute(commands.Stop, {"reason": MAX_SIZE})
    if session.upload:
        # Nobody sends ticks for it, so its silence says nothing.
        return SendFinal() if session.state == State.STOPPING and not facts.final_sent else None
    is_silent = _silence_s(facts) > limits.host_silent_s > 0
    # While the pipeline is paused, nobody folds the host's fragments: it cannot be heard.
    if session.state in FILLING and is_silent and not session.pipeline_paused:
        return Execute(commands.Error, {"reason": HOST_SILENT})
    return None


def _silent(facts: Facts, limits: SilenceLimits) -> Action | None:
    """The action in ERROR. Only the error of a silent host ends without a person: the host sends again."""
    session = facts.session
    if session.reason != HOST_SILENT or session.sealed or session.destroy:
        return None
    returned = facts.heard_us > session.moved_us or facts.ended_chunks is not None
    if returned or session.end_requested:
        chunks = len(facts.recorded)
        return Execute(commands.Recover, {"reason": HOST_RETURNED if returned else "ended", "chunks": chunks})
    is_lost = (facts.now_us - session.moved_us) / 1e6 > limits.host_return_s > 0
    if is_lost and session.dek_id and not session.pipeline_paused:
        return Execute(commands.RequestEnd, {"end": "host_lost", "reason": HOST_SILENT})
    return None


def _silence_s(facts: Facts) -> float:
    """Seconds of silence up to `looked_us`: later fragments may be the host's, and were not read."""
    return (facts.looked_us - max(facts.heard_us, facts.session.moved_us)) / 1e6
