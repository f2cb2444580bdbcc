"""Owns what people and programs are told of a session: one JSON object, from its fold."""

from typing import Any

from handlers.lifecycle.rules import allowed, next_commands
from handlers.lifecycle.session import Session

NEVER = 0


LOST_MOST = 1000
"""Lost chunks that are told one by one: the answer fits into a message."""


def shown(session: Session) -> dict[str, Any]:
    """The session as `show` tells it. Binary in lowercase hex, times in µs, 0: never."""
    created = session.created
    assert created is not None
    said = {
        **summary(session),
        "allowed": allowed(session),
        "next": next_commands(session),
        "settings": created.settings.model_dump(),
        "run": session.run,
        "lost": {str(index): reason for index, reason in sorted(session.losses.items())[:LOST_MOST]},
        "losses": len(session.losses),
        "released": session.released_chunks,
        "events": session.events,
    }
    if session.end_requested is not None:
        said["end"] = {"end": session.end_requested.end, "reason": session.end_requested.reason}
    if session.shredded is not None:
        said["tombstone"] = session.shredded.tombstone.hex()
    return said


def summary(session: Session) -> dict[str, Any]:
    """The session as a list tells it: what `shown` says too, without what one asks of a single session."""
    created = session.created
    assert created is not None
    newest = session.seals[-1] if session.seals else None
    said: dict[str, Any] = {
        "session": session.id,
        "uid": created.uid.hex(),
        "state": session.state,
        "reason": session.reason,
        "host": created.host,
        "created_us": created.at_us,
        "started_us": session.started_us or NEVER,
        "moved_us": session.moved_us,
        "held": session.held,
        "sealed": newest is not None,
        "shredded": session.shredded is not None,
    }
    if newest is not None:
        said["seal"] = {
            "seal_no": newest.seal_no,
            "sealed_us": newest.at_us,
            "manifest": newest.manifest.hex(),
            "root": newest.root.hex(),
            "chunks": newest.chunks,
            "plain": newest.plain,
            "sealed": newest.sealed,
        }
    return said
