"""Reads a session's chunk events back: its checkpoint, its recorded chunks, the place of one fragment."""

from collections.abc import AsyncIterator
from typing import NamedTuple

from schemas import subjects
from schemas.errors import Rejected, Unavailable
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
    """The session's checkpoint, read from the leader; None: there is none yet.

    Raises Unavailable (record.forgotten).
    """
    message = await _newest(jet, subjects.chunk(subjects.RECORDED, session))
    if message is None:
        return None
    event = recorded_in(message)
    if event is None:  # a foreign message stands after it: our next event goes after that message
        async for earlier in recorded_events(jet, session):
            event = earlier
    return Checkpoint(message.seq, event) if event else None


async def _newest(jet: Reader, subject: str) -> Message | None:
    """The newest message of a subject in CHUNKS; None: there is none.

    When all messages of a subject stand behind a damaged length of a block, nats-server drops them, and keeps
    their number in its index. From then on it denies later messages of the subject, and takes each append as
    the first one. So an absence is believed only if a read finds nothing, either.
    Raises Unavailable (record.forgotten).
    """
    newest = await jet.last(subjects.CHUNKS, subject)
    if newest is not None:
        return newest
    held, _ = await jet.batch(subjects.CHUNKS, subject, 1, max_messages=1)
    if held:
        newest = await jet.last(subjects.CHUNKS, subject)  # another owner may have appended meanwhile
        if newest is None:
            raise Unavailable(
                f"the NATS server denies the events of {subject}, and holds message {held[0].seq}: "
                f"its index of {subjects.CHUNKS} is damaged",
                code="record.forgotten",
                hint=f"stop the NATS server, remove index.db in its folder of {subjects.CHUNKS}, "
                "and start it: it makes that file again",
            )
    return newest


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
