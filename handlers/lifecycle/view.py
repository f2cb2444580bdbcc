"""Renders a session as JSON for `show` and lists, and names the commands that fit its state."""

from collections.abc import Callable
from typing import Any

from handlers.lifecycle.rules import BLOCKERS, EVENT_RULES, Blocker, allowed, blockers
from handlers.lifecycle.session import Session
from schemas.events.commands import RequestEnd, Trigger
from schemas.events.session import State

NEVER = 0
LOST_MOST = 1000
"""Lost chunks that an answer lists one by one: it must fit into a message."""


def session_details(session: Session) -> dict[str, Any]:
    """Return the session as `show` answers it. Binary in lowercase hex, times in µs, 0: never."""
    members = {
        **summary(session),
        "next": next_commands(session),
        "upload": session.upload,
        "run": session.run,
        "lost": {str(index): reason for index, reason in sorted(session.losses.items())[:LOST_MOST]},
        "released": session.released_chunks,
        "events": session.events,
    }
    if session.end_requested is not None:
        members["end"] = {"end": session.end_requested.end, "reason": session.end_requested.reason}
    if session.shredded is not None:
        members["tombstone"] = session.shredded.tombstone.hex()
    return members


def summary(session: Session) -> dict[str, Any]:
    """Return the session as a list shows it: a part of `session_details`. `capture`: only if it is known."""
    created = session.created
    assert created is not None
    newest = session.seals[-1] if session.seals else None
    members: dict[str, Any] = {
        "session": session.id,
        "uid": created.uid.hex(),
        "state": session.state,
        "reason": session.reason,
        "host": created.host,
        "created_us": created.at_us,
        "started_us": session.started_us or NEVER,
        "ended_us": session.ended_us or NEVER,
        "duration_us": session.duration_us,
        "moved_us": session.moved_us,
        "revision": session.revision,
        "allowed": allowed(session),
        "settings": created.settings.model_dump(),
        "policy": session.policy.model_dump(exclude_none=True),
        "pipeline_paused": session.pipeline_paused,
        "losses": len(session.losses),
        "held": session.held,
        "retained_until_us": session.retained_until_us or NEVER,
        "sealed": newest is not None,
        "shredded": session.shredded is not None,
    }
    if created.capture is not None:
        members["capture"] = created.capture.model_dump(exclude_none=True)
    if newest is not None:
        members["seal"] = {
            "seal_no": newest.seal_no,
            "sealed_us": newest.at_us,
            "manifest": newest.manifest.hex(),
            "root": newest.root.hex(),
            "chunks": newest.chunks,
            "data_chunks": session.data_chunks,
            "plain": newest.plain,
            "sealed": newest.sealed,
        }
    return members


def next_commands(session: Session) -> list[str]:
    """Return the commands that a person can type about this session now, the likeliest first."""
    return [verb.format(session.id) for verb, fits in VERBS if fits(session)]


def refusal_hint(session: Session, unless: tuple[Blocker, ...] = (), most: int = 2) -> str:
    """Return the hint of a refused command: never `destroy`, and `--abort` only with a condition.

    unless: what may have blocked it. A legal hold is lifted before all else.
    """
    if "under legal hold" in blockers(session, unless):
        return RELEASE.format(session.id)
    found = [verb for verb, fits in VERBS if verb != DESTROY and fits(session)][:most]
    hints = [f"if its host is gone: {verb}" if verb == ABORT else verb for verb in found]
    return ", or ".join(verb.format(session.id) for verb in hints or ["lucid sessions show {}"])


def _moved_by(trigger: str) -> Callable[[Session], bool]:
    return lambda session: trigger in allowed(session)


def _is_evidence(session: Session) -> bool:
    return session.sealed and not BLOCKERS["ordered to be destroyed"](session)


def _may_be_ended(session: Session) -> bool:
    rule = EVENT_RULES[RequestEnd]
    asked = rule.already(session, None)
    return session.state in rule.states and not asked and not blockers(session, rule.unless)


def _may_be_destroyed(session: Session) -> bool:
    return session.state != State.CLEANUP and Trigger.CLEANUP in allowed(session)


ABORT, DESTROY = "lucid sessions stop {} --abort", "lucid sessions destroy {}"
RELEASE = "when its legal hold ends: lucid sessions release {}"
VERBS: tuple[tuple[str, Callable[[Session], bool]], ...] = (
    ("lucid verify {}", _is_evidence),
    ("lucid replay {}", _is_evidence),
    ("lucid export {} --out FILE", _is_evidence),
    ("lucid recover {}", _moved_by(Trigger.RECOVER)),
    ("lucid sessions resume {}", _moved_by(Trigger.RESUME)),
    ("lucid sessions stop {}", _moved_by(Trigger.STOP)),
    ("lucid sessions pause {}", _moved_by(Trigger.PAUSE)),
    (ABORT, _may_be_ended),
    (DESTROY, _may_be_destroyed),
)
"""Commands for people, the likeliest first, each with the condition under which it fits."""
