"""Decides the event that a command appends to a session's log, or refuses the command.

1. The rules are the tables of rules.py; this module has none of its own.
2. One command gives at most one event: one append is the whole command, and a crash cannot split it.
3. A command with a `cause` that the log already holds gives no event: a repeated command counts once.
4. Pure: times come with commands.
5. session.py folds the log into a Session; this module does not know how.
"""

from handlers.crypto.signatures import verify_signature
from handlers.lifecycle.rules import EVENT_RULES, ROWS, Blocker, allowed, blockers
from handlers.lifecycle.session import Session
from handlers.lifecycle.view import refusal_hint
from schemas.errors import Denied, RefusedByState, Stale, session_absent
from schemas.events.commands import (
    CREATE_PREFIX,
    AllotRun,
    BeginSeal,
    ChangeDetails,
    Cleanup,
    Command,
    Create,
    Destroy,
    Move,
    Open,
    Recover,
    StartComplete,
)
from schemas.events.session import (
    Created,
    DestroyOrdered,
    Event,
    Recovered,
    StartCompleted,
    Transitioned,
)
from schemas.types import utc_text

REVISIONS_MOST = 1000
"""Changes of the details of one session: each is a line of its history for ever."""


def decide(session: Session, command: Command) -> list[Event]:
    """Return the events that `command` appends to this session's log: none or one.

    Raises NotFound (session.absent), RefusedByState (state.refused, session.exists, idempotency.reused,
    retention.early, session.revisions), Stale (session.revision), Denied (host.signature).
    """
    if isinstance(command, Create):
        return _create(session, command)
    if session.created is None:
        raise session_absent(session.id)
    if command.cause in session.causes:
        return []
    if isinstance(command, Move):
        return _move(session, command)
    return _fact(session, command)


def check_request(command: Create) -> None:
    """Raises Denied (host.signature): the key in the request did not sign it."""
    if not verify_signature(command.host_key, command.signed_part, command.request, CREATE_PREFIX):
        raise Denied(
            f"the request to create {command.session} is not signed by the key it names",
            code="host.signature",
        )


def _create(session: Session, command: Create) -> list[Event]:
    check_request(command)
    if session.created is not None:
        if isinstance(command, Open):
            check_repeated(session, command)
        elif session.created.request != command.request:
            raise _exists(session)
        return []
    return [Created(uid=command.uid, **command.model_dump())]


def check_repeated(session: Session, command: Open) -> None:
    """Raises RefusedByState: session.exists, or idempotency.reused (the same cause with another content)."""
    created = session.created
    assert created is not None
    if created.cause != command.cause:
        raise _exists(session)
    content = ("settings", "policy", "capture", "details", "secret", "upload")
    if any(getattr(created, name) != getattr(command, name) for name in content):
        raise RefusedByState(
            f"session {session.id} was created by a request with this key and another content",
            code="idempotency.reused",
            hint="repeat the first request as it was, or choose another key and another name",
        )


def check_revision(session: Session, revision: int) -> None:
    """Raises Stale (session.revision): `revision` is not the newest one of the session's details."""
    if revision != session.revision:
        raise Stale(
            f"the details of session {session.id} have revision {session.revision}, not {revision}",
            code="session.revision",
            hint="read the session again, then repeat the change",
        )


def _exists(session: Session) -> RefusedByState:
    return RefusedByState(
        f"session {session.id} exists already (allowed: a name that was never used)",
        code="session.exists",
        hint="names are never used twice; choose another",
    )


def _check_retention(session: Session, at_us: int) -> None:
    """Raises RefusedByState (retention.early). A session that never started holds no evidence."""
    until_us = session.protected_until_us
    if session.destroy is None and at_us < until_us:
        raise RefusedByState(
            f"session {session.id} is retained until {utc_text(until_us)}; nobody may destroy it earlier",
            code="retention.early",
            hint=f"lucid sessions show {session.id}",
        )


def _move(session: Session, command: Move) -> list[Event]:
    """The event of a command that moves the state."""
    row = ROWS.get((session.state, command.trigger))
    if row is None or blockers(session, row.unless):
        raise _refused(session, command.trigger, row.unless if row else ())
    if row.quiet:
        return []
    fields = {
        **command.model_dump(),
        "trigger": command.trigger,
        "from_state": session.state,
        "to_state": row.to_state,
    }
    match command:
        case StartComplete():
            return [StartCompleted(**fields)]
        case Recover():
            return [Recovered(**fields, run=session.run + 1)]
        case Cleanup() | Destroy():
            _check_retention(session, command.at_us)
            return [DestroyOrdered(**fields)]
    return [Transitioned(**fields)]


def _fact(session: Session, command: Command) -> list[Event]:
    """The event of a command that moves no state."""
    rule = EVENT_RULES[type(command)]
    if rule.already(session, command):
        return []
    if session.state not in rule.states or blockers(session, rule.unless):
        raise _refused(session, rule.words, rule.unless)
    fields = command.model_dump()
    if isinstance(command, ChangeDetails):
        check_revision(session, command.revision - 1)
        if session.revision >= REVISIONS_MOST:
            raise RefusedByState(
                f"the details of session {session.id} were changed {REVISIONS_MOST - 1} times; no more",
                code="session.revisions",
            )
    if isinstance(command, AllotRun):
        fields["run"] = session.run + 1
    if isinstance(command, BeginSeal):
        fields["seal_no"] = len(session.seals) + 1
    return [rule.event(**fields)]


def _refused(session: Session, asked: str, unless: tuple[Blocker, ...]) -> RefusedByState:
    """Return the refusal: the request, the session's state, the allowed triggers, the next command."""
    stands: tuple[Blocker, ...] = ("sealed", *(bar for bar in unless if bar != "sealed"))
    is_now = ", ".join((session.state, *blockers(session, stands)))
    return RefusedByState(
        f"session {session.id} cannot {asked}: it is {is_now} "
        f"(allowed: {', '.join(allowed(session)) or 'nothing'})",
        code="state.refused",
        hint=refusal_hint(session, unless),
    )
