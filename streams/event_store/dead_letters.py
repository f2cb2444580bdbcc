"""Owns what people are told of messages that came to nothing: dead letters, and what no session takes."""

from collections import Counter
from contextlib import suppress
from typing import Any

from schemas import subjects
from schemas.errors import NotFound, Rejected
from schemas.events.chunk import Dead
from schemas.events.upcast import read_event
from schemas.ports import Reader

MOST, MOST_BYTES = 100, 10 << 20
"""Dead letters of a session that are told at most: 100 of the longest fit."""
HOSTS_TOLD = 10
"""Of a name that no session has: an answer fits into a message, however many hosts use that name."""


async def refused(jet: Reader, session_id: str) -> list[dict[str, Any]]:
    """What stands in DEAD under a session's name, oldest first, at most MOST of it."""
    found, _ = await jet.batch(
        subjects.DEAD, subjects.dead("*", session_id), max_messages=MOST, max_bytes=MOST_BYTES
    )
    told = []
    for message in found:
        with suppress(Rejected):
            event = read_event(message.data)
            if isinstance(event, Dead):
                told.append(event.model_dump(mode="json", exclude={"type", "session", "body"}))
    return told


async def dead_letters(jet: Reader, session_id: str) -> int:
    """How many messages DEAD holds under a session's name."""
    return sum((await jet.subject_counts(subjects.DEAD, subjects.dead("*", session_id))).values())


async def absent(jet: Reader, session_id: str) -> NotFound:
    """That there is no such session (session.absent), and what came for it all the same."""
    letters = Counter((one["stage"], one["code"]) for one in await refused(jet, session_id))
    came = [f"{count} refused by {stage} ({code})" for (stage, code), count in letters.items()]
    fragments = await jet.subject_counts(subjects.RECORDINGS, subjects.recording_by_anyone(session_id))
    came += [
        f"{count} of host {subjects.host_of(subject)} waiting for it to begin"
        for subject, count in sorted(fragments.items())[:HOSTS_TOLD]
    ]
    told = f", but messages came for it: {', '.join(came)}" if came else ""
    return NotFound(
        f"there is no session {session_id}{told}", code="session.absent", hint="lucid sessions list"
    )
