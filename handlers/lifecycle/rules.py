"""The rules of a session's life: the table of its states, and the rules of all other events.

1. Every rule of movement is a row of TABLE, every other event a row of EVENT_RULES. A new rule is a new row.
2. Pure. decide.py applies the rules.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from handlers.lifecycle.session import Session
from schemas.events.commands import (
    AcceptLoss,
    AllotRun,
    BeginSeal,
    ChangeDetails,
    ChangeHold,
    Command,
    CompleteSeal,
    PausePipeline,
    RecordShredding,
    ReleaseSource,
    RequestEnd,
    ResumePipeline,
    Trigger,
)
from schemas.events.session import (
    DetailsChanged,
    EndRequested,
    Event,
    HoldChanged,
    LossAccepted,
    PipelinePaused,
    PipelineResumed,
    RunAllotted,
    Sealed,
    SealStarted,
    Shredded,
    SourceReleased,
    State,
)

STATES: tuple[str, ...] = tuple(value for name, value in vars(State).items() if name.isupper())
ALIVE = tuple(state for state in STATES if state != State.DESTROYED)

Blocker = Literal[
    "sealed",
    "ordered to be destroyed",
    "under legal hold",
    "keyed",
    "without a data key",
    "being sealed",
    "not being sealed",
]
BLOCKERS: dict[Blocker, Callable[[Session], bool]] = {
    "sealed": lambda session: session.sealed,
    # After the order the key may be erased, so the order alone blocks.
    "ordered to be destroyed": lambda session: session.destroy is not None or session.shredded is not None,
    "under legal hold": lambda session: session.held,
    "keyed": lambda session: bool(session.dek_id),
    "without a data key": lambda session: not session.dek_id,
    "being sealed": lambda session: session.seal_started is not None,
    "not being sealed": lambda session: session.seal_started is None,
}
"""Conditions that block a row although its state and trigger fit."""


class TransitionRule(NamedTuple):
    """One allowed transition. A `quiet` row changes nothing and appends nothing."""

    from_state: str
    trigger: str
    to_state: str
    unless: tuple[Blocker, ...] = ()
    quiet: bool = False


TABLE: tuple[TransitionRule, ...] = (
    TransitionRule(State.CREATED, Trigger.START, State.STARTING),
    TransitionRule(State.STARTING, Trigger.START_COMPLETE, State.ACTIVE),
    # ERROR before START_COMPLETE, then RECOVER: the key is made now; the state is ACTIVE already.
    TransitionRule(State.ACTIVE, Trigger.START_COMPLETE, State.ACTIVE, ("keyed",)),
    TransitionRule(State.ACTIVE, Trigger.PAUSE, State.PAUSING),
    TransitionRule(State.PAUSING, Trigger.PAUSE_COMPLETE, State.PAUSED),
    TransitionRule(State.PAUSED, Trigger.RESUME, State.ACTIVE),
    TransitionRule(State.ACTIVE, Trigger.STOP, State.STOPPING),
    TransitionRule(State.PAUSED, Trigger.STOP, State.STOPPING),
    TransitionRule(State.STOPPING, Trigger.STOP_COMPLETE, State.STOPPED),
    *(TransitionRule(state, Trigger.ERROR, State.ERROR, quiet=state == State.ERROR) for state in ALIVE),
    TransitionRule(State.ERROR, Trigger.RECOVER, State.ACTIVE, ("sealed", "ordered to be destroyed")),
    *(
        TransitionRule(
            state, Trigger.CLEANUP, State.CLEANUP, ("under legal hold",), quiet=state == State.CLEANUP
        )
        for state in ALIVE
    ),
    TransitionRule(State.CLEANUP, Trigger.CLEANUP_COMPLETE, State.DESTROYED),
    TransitionRule(State.CREATED, Trigger.DESTROY, State.DESTROYED, ("under legal hold",)),
)
ROWS = {(row.from_state, row.trigger): row for row in TABLE}


class EventRule(NamedTuple):
    """The rule of an event that moves no state: its states, its blockers, when it has happened already."""

    event: Callable[..., Event]
    """The event that the command appends."""
    words: str
    """Text after "cannot" in a refusal."""
    states: tuple[str, ...]
    unless: tuple[Blocker, ...]
    already: Callable[[Session, Any], bool] = lambda session, command: False


RUNNING = (State.ACTIVE, State.PAUSING, State.PAUSED, State.STOPPING, State.ERROR)
SEALING = (State.STOPPING, State.STOPPED)
EVENT_RULES: dict[type[Command], EventRule] = {
    RequestEnd: EventRule(
        EndRequested,
        "be ended without its host",
        RUNNING,
        ("sealed", "ordered to be destroyed", "being sealed", "without a data key"),
        lambda session, command: session.end_requested is not None,
    ),
    AllotRun: EventRule(
        RunAllotted, "be driven again", (*RUNNING, State.STOPPED), ("ordered to be destroyed",)
    ),
    # Once a seal has begun, its bytes are fixed: a loss accepted now would be in no manifest.
    AcceptLoss: EventRule(
        LossAccepted,
        "give up a chunk",
        RUNNING,
        ("sealed", "ordered to be destroyed", "being sealed"),
        lambda session, command: command.index in session.losses,
    ),
    # Not after a seal has begun: the complete seal releases the whole source.
    ReleaseSource: EventRule(
        SourceReleased,
        "release its source",
        RUNNING,
        ("sealed", "ordered to be destroyed", "being sealed"),
        lambda session, command: command.chunks <= session.released_chunks,
    ),
    ChangeHold: EventRule(
        HoldChanged,
        "change its legal hold",
        ALIVE,
        ("ordered to be destroyed",),
        lambda session, command: command.held == session.held,
    ),
    # Also of a sealed session: its history goes on, and no seal covers the later lines.
    ChangeDetails: EventRule(DetailsChanged, "change its details", ALIVE, ("ordered to be destroyed",)),
    # Not once a seal has begun: no fragment counts any more, and nothing is left to wait.
    PausePipeline: EventRule(
        PipelinePaused,
        "pause its pipeline",
        (State.CREATED, State.STARTING, *RUNNING),
        ("sealed", "ordered to be destroyed", "being sealed"),
        lambda session, command: session.pipeline_paused,
    ),
    ResumePipeline: EventRule(
        PipelineResumed,
        "resume its pipeline",
        ALIVE,
        ("ordered to be destroyed",),
        lambda session, command: not session.pipeline_paused,
    ),
    BeginSeal: EventRule(
        SealStarted, "be sealed", SEALING, ("being sealed", "without a data key", "ordered to be destroyed")
    ),
    # Not in ERROR: after RECOVER the same seal is made again, byte for byte, and ends in STOPPED.
    CompleteSeal: EventRule(
        Sealed,
        "complete its seal",
        SEALING,
        ("not being sealed",),
        lambda session, command: command.seal_no <= len(session.seals),
    ),
    RecordShredding: EventRule(
        Shredded,
        "record its shredding",
        (State.CLEANUP, State.DESTROYED),
        (),
        lambda session, command: session.shredded is not None,
    ),
}


def allowed(session: Session) -> list[str]:
    """Return the triggers that can move this session now."""
    return [
        row.trigger for row in TABLE if row.from_state == session.state and not blockers(session, row.unless)
    ]


def blockers(session: Session, unless: tuple[Blocker, ...]) -> list[Blocker]:
    """Return the conditions of `unless` that hold."""
    return [bar for bar in unless if BLOCKERS[bar](session)]
