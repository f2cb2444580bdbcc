"""Says which names RECORDINGS holds something of, where that costs little.

Anybody who may publish can make names up, each up to 4 KiB long, and the server cuts off whoever it owes
more than 64 MiB. So many names are never asked for at once; whether one is there is one small question.
"""

from schemas import subjects
from schemas.ports import Reader

MOST_NAMES = 10_000
"""At 4 KiB each, far below what the server owes at most."""


async def recorded_names(jet: Reader) -> set[str] | None:
    """Every name of which something is there; None: there are too many to tell."""
    if (await jet.info(subjects.RECORDINGS)).subjects > MOST_NAMES:
        return None
    counts = await jet.subject_counts(subjects.RECORDINGS, subjects.ALL_RECORDINGS)
    return {subjects.session_of(subject) for subject in counts}


async def is_recorded(jet: Reader, name: str) -> bool:
    """Whether something of this session is there."""
    return bool(await jet.subject_counts(subjects.RECORDINGS, subjects.recording_by_anyone(name)))
