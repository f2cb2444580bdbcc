"""Reads a session's chunk events back: its checkpoint, its recorded chunks, the place of one fragment."""

from collections.abc import AsyncIterator
from typing import NamedTuple

from schemas import subjects
from schemas.errors import Rejected
from schemas.events.chunk import Ended, Recorded
from schemas.events.upcast import read_recorded
from schemas.format.fragment import Header, Kind, head
from schemas.format.index import fragment_rows
from schemas.ports import Reader
from schemas.ports.messages import Message


def stream_seqs(recorded: Recorded) -> list[int]:
    """Stream sequences of the chunk's fragments, by seq."""
    at, seqs = 0, []
    for step in recorded.stream:
        at += step
        seqs.append(at)
    return seqs


def data_seqs(recorded: Recorded) -> list[int]:
    """Stream sequences of the chunk's data fragments, by seq."""
    rows = fragment_rows(recorded.rows)
    return [seq for seq, row in zip(stream_seqs(recorded), rows, strict=True) if row.kind is Kind.DATA]


class Checkpoint(NamedTuple):
    """The last event of a session's recording. seq: our next event goes after the message at it."""

    seq: int
    event: Recorded | Ended


async def last_recorded(jet: Reader, session: str) -> Checkpoint | None:
    """The session's checkpoint, read from the leader; None: there is none yet."""
    message = await jet.last(subjects.CHUNKS, subjects.chunk(subjects.RECORDED, session))
    if message is None:
        return None
    event = recorded_in(message)
    if event is None:  # a foreign message stands after it: our next event goes after that message
        async for earlier in recorded_events(jet, session):
            event = earlier
    return Checkpoint(message.seq, event) if event else None


async def recorded_chunks(jet: Reader, session: str) -> int:
    """How many chunks of the session are recorded now."""
    last = await last_recorded(jet, session)
    return last.event.state.next_index if last else 0


async def recorded_events(jet: Reader, session: str) -> AsyncIterator[Recorded | Ended]:
    """Every event of the session's `recorded` subject, in order."""
    async for message in jet.read_all(subjects.CHUNKS, subjects.chunk(subjects.RECORDED, session)):
        event = recorded_in(message)
        if event is not None:
            yield event


def recorded_in(message: Message) -> Recorded | Ended | None:
    """The event of a message; None: it is no event. Raises Rejected: its type belongs to a newer version."""
    try:
        return read_recorded(message.data)
    except Rejected as error:
        if error.code != "event.malformed":
            raise
        return None


async def find_fragment(jet: Reader, session: str, wanted: Header) -> tuple[bytes, bytes] | None:
    """Head and proof (header ‖ H(body) ‖ signature) of the fragment taken at this place, or None."""
    async for event in recorded_events(jet, session):
        if isinstance(event, Ended) or event.track != wanted.track:
            continue
        if event.first_seq <= wanted.seq <= event.last_seq:
            previous = event.prev_head
            for seq, row in enumerate(fragment_rows(event.rows), event.first_seq):
                raw = row.header(event.uid, event.track, event.part, seq, previous).pack()
                previous = head(raw, row.body_digest)
                if seq == wanted.seq:
                    return previous, raw + row.body_digest + row.signature
    return None
