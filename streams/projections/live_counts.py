"""Counts the chunks of running sessions on one page, from the last stored chunk of each.

The read models hold the counts of seals alone: a document is not written for each chunk.
"""

from collections.abc import Mapping, Sequence

from schemas import subjects
from schemas.config.logs import logger
from schemas.errors import LucidError, Rejected
from schemas.events.chunk import Stored
from schemas.events.upcast import read_chunk_event
from schemas.format.index import Entry
from schemas.ports import Reader
from schemas.ports.messages import Message

log = logger("lucid.views")


async def live_counts(jet: Reader, sessions: Sequence[str]) -> Mapping[str, dict[str, int]]:
    """Return `chunks` and `plain` of each of at most 1024 sessions that has a stored chunk.

    Chunks are stored side by side, so a chunk or two may be missing. Without an answer: none.
    """
    if not sessions:
        return {}
    try:
        wanted = [subjects.chunk(subjects.STORED, session) for session in sessions]
        found = await jet.lasts(subjects.CHUNKS, wanted, 0)
    except LucidError as error:
        log.warning("live_counts_failed", error=error)
        return {}
    counts = {subjects.session_of(subject): _counts(message) for subject, message in found.items()}
    return {session: one for session, one in counts.items() if one}


def _counts(message: Message) -> dict[str, int]:
    try:
        event = read_chunk_event(message.data)
        if isinstance(event, Stored):
            entry = Entry.parse(event.entry)
            return {"chunks": entry.index + 1, "plain": entry.offset + entry.plain}
    except Rejected:
        pass  # foreign, or of a newer version
    return {}
