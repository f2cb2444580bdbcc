"""Owns what may happen to a session: the table of its states, and which command appends which event.

1. Every rule of movement is a row of TABLE, and what an error says to be allowed comes from it. A new rule is
   a new row.
2. One command gives at most one event, so one append is the whole command and no crash can part it.
3. A command whose `cause` the log already holds gives nothing: whoever asks twice has asked once.
4. Pure: times come in with commands.
5. It must not know how a log becomes a Session: that fold is session.py's.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from handlers.session import Session, evolve, initial
from handlers.signatures import verify_signature
from schemas.commands import (
    CREATE_PREFIX,
    AcceptLoss,
    AllotRun,
    BeginSeal,
    ChangeHold,
    Cleanup,
    Command,
    CompleteSeal,
    Create,
    Destroy,
    Move,
    RecordShredding,
    Recover,
    ReleaseSource,
    RequestEnd,
    StartComplete,
    Trigger,
)
from schemas.errors import Denied, NotFound, RefusedByState
from schemas.fragment import session_uid
from schemas.lifecycle_events import (
    Created,
    DestroyOrdered,
    EndRequested,
    Event,
    HoldChanged,
    LossAccepted,
    Recovered,
    RunAllotted,
    Sealed,
    SealStarted,
    Shredded,
    SourceReleased,
    StartCompleted,
    State,
    Transitioned,
)

__all__ = ["STATES", "TABLE", "Row", "Session", "allowed", "decide", "evolve", "initial"]

STATES = (
    State.CREATED,
    State.STARTING,
    State.ACTIVE,
    State.PAUSING,
    State.PAUSED,
    State.STOPPING,
    State.STOPPED,
    State.ERROR,
    State.CLEANUP,
    State.DESTROYED,
)
ALIVE = tuple(state for state in STATES if state != State.DESTROYED)

Bar = Literal[
    "sealed",
    "ordered to be destroyed",
    "under legal hold",
    "keyed",
    "without a data key",
    "being sealed",
    "not being sealed",
]
BARS: dict[Bar, Callable[[Session], bool]] = {
    "sealed": lambda session: session.sealed,
    # From the order on the fence may stand, so the order alone counts as shredded.
    "ordered to be destroyed": lambda session: session.destroy is not None or session.shredded is not None,
    "under legal hold": lambda session: session.held,
    "keyed": lambda session: bool(session.dek_id),
    "without a data key": lambda session: not session.dek_id,
    "being sealed": lambda session: session.seal_started is not None,
    "not being sealed": lambda session: session.seal_started is None,
}
"""What can stand in the way of a row whose state and trigger fit."""


class Row(NamedTuple):
    """One allowed movement. A `quiet` row changes nothing and appends nothing."""

    from_state: str
    trigger: str
    to_state: str
    unless: tuple[Bar, ...] = ()
    quiet: bool = False


TABLE: tuple[Row, ...] = (
    Row(State.CREATED, Trigger.START, State.STARTING),
    Row(State.STARTING, Trigger.START_COMPLETE, State.ACTIVE),
    # ERROR before START_COMPLETE, then RECOVER: the key is made now, the state is right already.
    Row(State.ACTIVE, Trigger.START_COMPLETE, State.ACTIVE, ("keyed",)),
    Row(State.ACTIVE, Trigger.PAUSE, State.PAUSING),
    Row(State.PAUSING, Trigger.PAUSE_COMPLETE, State.PAUSED),
    Row(State.PAUSED, Trigger.RESUME, State.ACTIVE),
    Row(State.ACTIVE, Trigger.STOP, State.STOPPING),
    Row(State.PAUSED, Trigger.STOP, State.STOPPING),
    Row(State.STOPPING, Trigger.STOP_COMPLETE, State.STOPPED),
    *(Row(state, Trigger.ERROR, State.ERROR, quiet=state == State.ERROR) for state in ALIVE),
    Row(State.ERROR, Trigger.RECOVER, State.ACTIVE, ("sealed", "ordered to be destroyed")),
    *(
        Row(state, Trigger.CLEANUP, State.CLEANUP, ("under legal hold",), quiet=state == State.CLEANUP)
        for state in ALIVE
    ),
    Row(State.CLEANUP, Trigger.CLEANUP_COMPLETE, State.DESTROYED),
    Row(State.CREATED, Trigger.DESTROY, State.DESTROYED, ("under legal hold",)),
)
ROWS = {(row.from_state, row.trigger): row for row in TABLE}


class Fact(NamedTuple):
    """An event that moves no state: where it may happen, and when it has happened already."""

    states: tuple[str, ...]
    unless: tuple[Bar, ...]
    already: Callable[[Session, Any], bool] = lambda session, command: False


RUNNING = (State.ACTIVE, State.PAUSING, State.PAUSED, State.STOPPING, State.ERROR)
SEALING = (State.STOPPING, State.STOPPED)
FACTS: dict[type[Command], Fact] = {
    RequestEnd: Fact(
        RUNNING,
        ("sealed", "ordered to be destroyed", "being sealed", "without a data key"),
        lambda session, command: session.end_requested is not None,
    ),
    AllotRun: Fact((*RUNNING, State.STOPPED), ("ordered to be destroyed",)),
    # Once a seal has begun, its bytes are fixed: a loss accepted now would be in no manifest.
    AcceptLoss: Fact(
        RUNNING,
        ("sealed", "ordered to be destroyed", "being sealed"),
        lambda session, command: command.index in session.losses,
    ),
    # Not once a seal has begun: its source goes whole, when the seal is complete.
    ReleaseSource: Fact(
        RUNNING,
        ("sealed", "ordered to be destroyed", "being sealed"),
        lambda session, command: command.chunks <= session.released_chunks,
    ),
    ChangeHold: Fact(
        ALIVE, ("ordered to be destroyed",), lambda session, command: command.held == session.held
    ),
    BeginSeal: Fact(SEALING, ("being sealed", "without a data key", "ordered to be destroyed")),
    # Not in ERROR: after RECOVER the same seal is made again, byte for byte, and ends in STOPPED.
    CompleteSeal: Fact(
        SEALING, ("not being sealed",), lambda session, command: command.seal_no <= len(session.seals)
    ),
    RecordShredding: Fact(
        (State.CLEANUP, State.DESTROYED), (), lambda session, command: session.shredded is not None
    ),
}

HINTS = {
    State.STOPPED: "start a new session",
    State.DESTROYED: "its evidence is gone for good; its history remains: lucid sessions show",
    State.CREATED: "start it first",
    State.ERROR: "end it without its host: lucid sessions stop --abort",
}


def allowed(session: Session) -> list[str]:
    """The triggers that would move this session now."""
    return [
        row.trigger for row in TABLE if row.from_state == session.state and not _barred(session, row.unless)
    ]


def decide(session: Session, command: Command) -> list[Event]:
    """The events that `command` appends to this session's log: none or one.

    Raises NotFound (session.absent), RefusedByState (state.refused, session.exists), Denied (host.signature).
    """
    if isinstance(command, Create):
        return _create(session, command)
    if session.created is None:
        raise NotFound(
            f"there is no session {session.id}", code="session.absent", hint="list them: lucid sessions list"
        )
    if command.cause in session.causes:
        return []
    if isinstance(command, Move):
        return _move(session, command)
    return _fact(session, command)


def _create(session: Session, command: Create) -> list[Event]:
    if not verify_signature(command.host_key, command.signed_part, command.request, CREATE_PREFIX):
        raise Denied(
            f"the request to create {command.session} is not signed by the key it names",
            code="host.signature",
        )
    if session.created is not None:
        if session.created.request == command.request:
            return []
        raise RefusedByState(
            f"session {session.id} exists already (allowed: a name that was never used)",
            code="session.exists",
            hint="names are never used twice; choose another",
        )
    return [Created(uid=session_uid(command.host_key, command.counter), **command.model_dump())]


def _move(session: Session, command: Move) -> list[Event]:
    row = ROWS.get((session.state, command.trigger))
    if row is None or _barred(session, row.unless):
        raise _refused(session, command.trigger, row.unless if row else ())
    if row.quiet:
        return []
    said = {
        **command.model_dump(),
        "trigger": command.trigger,
        "from_state": session.state,
        "to_state": row.to_state,
    }
    match command:
        case StartComplete():
            return [StartCompleted(**said)]
        case Recover():
            return [Recovered(**said, run=session.run + 1)]
        case Cleanup() | Destroy():
            return [DestroyOrdered(**said)]
    return [Transitioned(**said)]


def _fact(session: Session, command: Command) -> list[Event]:
    rule = FACTS[type(command)]
    if rule.already(session, command):
        return []
    if session.state not in rule.states or _barred(session, rule.unless):
        raise _refused(session, type(command).__name__, rule.unless)
    said = command.model_dump()
    match command:
        case RequestEnd():
            return [EndRequested(**said)]
        case AllotRun():
            return [RunAllotted(**said, run=session.run + 1)]
        case AcceptLoss():
            return [LossAccepted(**said)]
        case ReleaseSource():
            return [SourceReleased(**said)]
        case ChangeHold():
            return [HoldChanged(**said)]
        case BeginSeal():
            return [SealStarted(**said, seal_no=len(session.seals) + 1)]
        case CompleteSeal():
            return [Sealed(**said)]
        case RecordShredding():
            return [Shredded(**said)]
    raise TypeError(f"FACTS names {type(command).__name__}, _fact does not")


def _barred(session: Session, unless: tuple[Bar, ...]) -> list[Bar]:
    return [bar for bar in unless if BARS[bar](session)]


def _refused(session: Session, trigger: str, unless: tuple[Bar, ...]) -> RefusedByState:
    """The one refusal: what was asked, what the session is, what is allowed."""
    is_now = ", ".join((session.state, *_barred(session, unless)))
    return RefusedByState(
        f"session {session.id} cannot {trigger}: it is {is_now} "
        f"(allowed: {', '.join(allowed(session)) or 'nothing'})",
        code="state.refused",
        hint=HINTS.get(session.state, ""),
    )
