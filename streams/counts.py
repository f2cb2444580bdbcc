"""Owns how many messages each recording holds: one answer of the server for all, or one for each.

Anybody who may publish can make names up, each up to 4 KiB long, and the server cuts off whoever it owes
more than 64 MiB. So when there are many names, only those of known sessions are asked for.
"""

from collections.abc import Iterable

from handlers.session import Session
from schemas import subjects
from schemas.ports import Reader

MOST_NAMES = 10_000
"""At 4 KiB each, far below what the server owes at most."""


async def recorded_names(jet: Reader, names: Iterable[str]) -> set[str]:
    """Sessions of which something is there: of these, and of others where that costs nothing."""
    if (await jet.info(subjects.RECORDINGS)).subjects <= MOST_NAMES:
        counts = await jet.subject_counts(subjects.RECORDINGS, subjects.ALL_RECORDINGS)
        return {subjects.session_of(subject) for subject in counts}
    return {
        name
        for name in names
        if await jet.subject_counts(subjects.RECORDINGS, subjects.recording_by_anyone(name))
    }


async def recording_counts(jet: Reader, sessions: Iterable[Session]) -> dict[str, int]:
    """Messages by subject: of these sessions, and of others where that costs nothing. Raises Unavailable."""
    if (await jet.info(subjects.RECORDINGS)).subjects <= MOST_NAMES:
        return await jet.subject_counts(subjects.RECORDINGS, subjects.ALL_RECORDINGS)
    counts: dict[str, int] = {}
    for session in sessions:
        if session.created is not None:
            own = subjects.recording(session.created.host, session.id)
            counts |= await jet.subject_counts(subjects.RECORDINGS, own)
    return counts
