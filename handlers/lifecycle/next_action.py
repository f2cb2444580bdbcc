"""Owns what a session needs next, seen from everything that is known of it: one action, or none.

1. Level-triggered: it looks at facts, never at what has just happened. Whoever asks after a crash, twice, or
   in two processes is told the same; every action is safe to begin again.
2. An action is done whole, then the facts are read again and it is asked again, until it says None.
3. Pure: `now_us` comes in with the facts.
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
"""Reason of an ERROR that the host itself can end, by being heard again."""
HOST_RETURNED = "HOST_RETURNED"
NO_LABEL = re.compile(r"[^A-Za-z0-9_.-]")
FILLING = (State.ACTIVE, State.STOPPING)
"""States in which the host is expected to send, unless its recording has ended."""


@dataclass(frozen=True, slots=True)
class Silence:
    """How long a host may be silent. Seconds; 0 switches a limit off."""

    host_silent_s: float = 60
    """Six of the ticks that an idle host sends."""
    host_return_s: float = 7 * 86_400
    """From ERROR(HOST_SILENT) until the platform ends the recording."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one session."""

    session: Session
    now_us: int
    recorded: Mapping[int, int] = field(default_factory=dict)
    """Chunk index → stream sequence of its `recorded`."""
    stored: Mapping[int, int] = field(default_factory=dict)
    """Chunk index → stream sequence of its newest `stored`."""
    driven: Mapping[int, int] = field(default_factory=dict)
    """Chunk index → newest run under which its claim was given out again."""
    dead: Mapping[tuple[int, int], str] = field(default_factory=dict)
    """(chunk index, run) → code of what ended its way."""
    ended_chunks: int | None = None
    """How many chunks the recording has in all; None while it goes on."""
    end_sent: bool = False
    """Our `end` fragment stands in the recording."""
    heard_us: int = 0
    """When the newest fragment came that was taken of the host; 0: never."""
    looked_us: int = 0
    """Up to when all that the recording holds was looked at; 0: nobody knows."""

    @property
    def missing(self) -> list[int]:
        """Recorded, neither stored nor given up."""
        return sorted(self.recorded.keys() - self.stored.keys() - self.session.losses.keys())

    @property
    def died(self) -> dict[int, str]:
        """Missing chunks that came to an end in the run that drives them, with the code."""
        found = {}
        for index in self.missing:
            run = self.session.run if index < self.session.run_chunks else 0
            if (index, run) in self.dead:
                found[index] = self.dead[index, run]
        return found

    @property
    def whole(self) -> bool:
        """Every chunk that the recording has is stored or given up."""
        n = self.ended_chunks
        return n is not None and not self.missing and len(self.recorded) == n


@dataclass(frozen=True, slots=True)
class MakeKey:
    """Make the session's data key, or find the one that was made; then START_COMPLETE."""


@dataclass(frozen=True, slots=True)
class Do:
    """Execute a command. Who asks adds session, time, name and cause."""

    command: type[Command]
    said: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SendEnd:
    """Put the platform's `end` fragment into the recording."""


@dataclass(frozen=True, slots=True)
class Redrive:
    """Give out the claims of these chunks again, under the session's run."""

    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StartSeal:
    """Fix what the seal is made from: n chunks, and `stored` up to this sequence."""

    n: int
    stored: int


@dataclass(frozen=True, slots=True)
class MakeSeal:
    """Make what SealStarted fixed: index chunks, manifest, then Sealed."""


@dataclass(frozen=True, slots=True)
class Shred:
    """Fence, erase, purge, tombstone; then Shredded."""


STOP = Do(commands.Stop, {"reason": "ended"})
Action = MakeKey | Do | SendEnd | Redrive | StartSeal | MakeSeal | Shred


def evaluate(facts: Facts, limits: Silence) -> Action | None:
    """What the session needs next; None: nothing, until a fact changes or time passes."""
    session = facts.session
    match session.state:
        case State.CLEANUP:
            # Tombstone first: a session that is DESTROYED and not shredded would look finished.
            return Do(commands.CleanupComplete) if session.shredded else Shred()
        case State.DESTROYED:
            return None if session.shredded else Shred()
        case State.STARTING:
            return MakeKey()
        case State.ACTIVE | State.PAUSING | State.PAUSED | State.STOPPING:
            return _running(facts, limits)
        case State.STOPPED:
            return MakeSeal() if session.seal_started else None
        case State.ERROR if session.destroy is not None:
            # An error that was decided on before the order, and appended after it: the order still stands.
            order = ("who", "reason", "approver", "backups_until_us")
            return Do(commands.Cleanup, {name: getattr(session.destroy, name) for name in order})
        case State.ERROR:
            return _silent(facts, limits)
    return None


def at_rest(session: Session) -> bool:
    """Whether nothing is needed until a person asks."""
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


def _running(facts: Facts, limits: Silence) -> Action | None:
    session = facts.session
    if not session.dek_id:
        return MakeKey()
    if session.sealed and not session.seal_started:
        return Do(commands.StopComplete, {"reason": "sealed"})
    again = [
        index
        for index in facts.missing
        if index < session.run_chunks and facts.driven.get(index, 0) < session.run
    ]
    if again:
        # Before anything is called dead: what died in an older run has not been tried in this one.
        return Redrive(tuple(again))
    for index, code in facts.died.items():
        return Do(commands.Error, {"reason": NO_LABEL.sub("_", f"{code}.{index}")[:100]})
    if session.state == State.PAUSING:
        return None if facts.missing else Do(commands.PauseComplete, {"reason": "drained"})
    if session.seal_started:
        # Begun before an ERROR that was recovered: whatever comes now changes no byte of it.
        return MakeSeal() if session.state == State.STOPPING else STOP
    if session.end_requested and facts.ended_chunks is None:
        return None if facts.end_sent else SendEnd()
    if facts.ended_chunks is not None:
        if session.state != State.STOPPING:
            return STOP
        return StartSeal(facts.ended_chunks, max(facts.stored.values(), default=0)) if facts.whole else None
    if session.state in FILLING and _silence_s(facts) > limits.host_silent_s > 0:
        return Do(commands.Error, {"reason": HOST_SILENT})
    return None


def _silent(facts: Facts, limits: Silence) -> Action | None:
    """A session in ERROR comes back by itself only from the host's silence."""
    session = facts.session
    if session.reason != HOST_SILENT or session.sealed or session.destroy:
        return None
    returned = facts.heard_us > session.moved_us or facts.ended_chunks is not None
    if returned or session.end_requested:
        chunks = len(facts.recorded)
        return Do(commands.Recover, {"reason": HOST_RETURNED if returned else "ended", "chunks": chunks})
    if (facts.now_us - session.moved_us) / 1e6 > limits.host_return_s > 0 and session.dek_id:
        return Do(commands.RequestEnd, {"end": "host_lost", "reason": HOST_SILENT})
    return None


def _silence_s(facts: Facts) -> float:
    """How long the host was silent, as far as was looked at: what nobody has looked at may be its own."""
    return (facts.looked_us - max(facts.heard_us, facts.session.moved_us)) / 1e6
