"""Tells which sessions have messages in RECORDINGS, at little cost.

Every publisher can make up names of up to 4 KiB. The server cuts off a client to which it owes more than
64 MiB. So many names are never asked for at once; one name is one small question.
"""

from schemas import subjects
from schemas.ports import Reader

MOST_NAMES = 10_000
"""At 4 KiB each, far below the 64 MiB that the server may owe."""


async def recorded_names(jet: Reader) -> set[str] | None:
    """Every name with messages; None: there are more than MOST_NAMES."""
    if (await jet.info(subjects.RECORDINGS)).subjects > MOST_NAMES:
        return None
    counts = await jet.subject_counts(subjects.RECORDINGS, subjects.ALL_RECORDINGS)
    return {subjects.session_of(subject) for subject in counts}


async def is_recorded(jet: Reader, name: str) -> bool:
    """Whether the session has messages, of any host."""
    return bool(await jet.subject_counts(subjects.RECORDINGS, subjects.recording_by_anyone(name)))
