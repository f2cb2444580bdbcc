"""Gathers the events up to SealStarted that a seal is made from, and checks that none is missing.

1. SealStarted fixes n, the time, the signer, and how far `stored` is read. Later events change no byte, so a
   seal that a crash interrupted is made again as it would have been.
2. A chunk whose loss was accepted is lost, even if a later `stored` names it.
3. Of several `stored` for one index the last that counts wins: it describes the file as it is now.

Source: format.md §7, §9.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from handlers.lifecycle.session import Session
from schemas.errors import Rejected
from schemas.events.chunk import Ended, Recorded, Stored
from schemas.events.session import Created, SealStarted
from schemas.format.digest import h
from schemas.format.index import Entry, FragmentRow, fragment_rows


@dataclass(frozen=True)
class Material:
    """One session, ready to be sealed; `gather` makes it."""

    session: Session
    """Folded up to SealStarted, which is its last event."""
    created: Created
    started: SealStarted
    history: Sequence[bytes]
    """The log's lines up to SealStarted, as they are stored."""
    recorded: Sequence[Recorded]
    """By index, 0..n-1."""
    stored: Mapping[int, Stored]
    """Of every chunk that is not lost."""
    ended: Ended

    @cached_property
    def entries(self) -> list[Entry]:
        """The entries of the data chunks, lost ones too."""
        return [
            Entry.parse(self.stored[event.index].entry) if event.index in self.stored else Entry.of(event)
            for event in self.recorded
        ]

    @cached_property
    def rows(self) -> list[list[FragmentRow]]:
        """The fragment rows of each data chunk, by seq."""
        return [fragment_rows(event.rows) for event in self.recorded]

    @property
    def history_digest(self) -> bytes:
        return h(b"".join(line + b"\n" for line in self.history))


def gather(
    session: Session,
    history: Sequence[bytes],
    recorded: Iterable[Recorded],
    stored: Iterable[tuple[int, Stored]],
    ended: Ended,
) -> Material:
    """Put the events together. stored: with their stream sequences, in stream order.

    Raises Rejected: an event that the seal needs is missing (seal.incomplete), or two of them disagree
    (seal.contradiction).
    """
    created, started = session.created, session.seal_started
    if created is None or started is None or not session.dek_id:
        raise Rejected(f"session {session.id} is not being sealed", code="seal.incomplete")
    by_index = {event.index: event for event in recorded}
    last = {event.index: event for seq, event in stored if seq <= started.stored}
    valid = {index: event for index, event in last.items() if index not in session.losses}
    missing = [
        n for n in range(started.n) if n not in by_index or (n not in valid and n not in session.losses)
    ]
    if missing or ended.chunks != started.n:
        raise Rejected(
            f"session {session.id} cannot be sealed: {ended.chunks} chunks were recorded, {started.n} are to "
            f"be sealed, {len(missing)} are missing (first: {missing[0] if missing else 'none'})",
            code="seal.incomplete",
        )
    material = Material(
        session, created, started, history, [by_index[n] for n in range(started.n)], valid, ended
    )
    for event, entry in zip(material.recorded, material.entries, strict=True):
        if entry.span != Entry.of(event).span:
            raise Rejected(
                f"chunk {event.index} of {session.id} has another entry in `stored` than in `recorded`",
                code="seal.contradiction",
            )
    return material
