"""Holds the conductor's memory of one session, and says which steps an event of its log makes it read."""

from dataclasses import dataclass, field

from handlers.lifecycle.session import Session
from streams.event_store.chunk_progress import STEPS_READ, ChunkProgress


@dataclass(slots=True)
class Tracked:
    """One session. It may be lost at any time."""

    progress: ChunkProgress
    session: Session
    unread: set[str] = field(default_factory=lambda: set(STEPS_READ))
    """Steps whose subjects have new events."""
    end_sent: bool = False
    final_sent: bool = False


def steps_after(before: Session, after: Session) -> set[str]:
    """The steps to read because of an event of the log. Chunk events wake by themselves, so most need none.

    A new run does: its chunks are read after its start was. So does an ending that was asked for.
    """
    is_other = (before.run, before.end_requested) != (after.run, after.end_requested)
    return set(STEPS_READ) if is_other else set()
