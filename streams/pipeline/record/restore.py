"""Owns taking up a recording's fold where its last event left it: the one way back, for whoever folds."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from handlers.stages.record.admit import Arrival
from handlers.stages.record.fold import Fold
from handlers.stages.record.pieces import Identity
from schemas import subjects
from schemas.errors import Unavailable
from schemas.events.chunk import Ended
from schemas.ports import Reader
from schemas.ports.messages import Message
from streams.event_store.chunk_log import last_recorded

Look = Callable[[Sequence[Message]], Awaitable[list[Arrival]]]
"""`handlers.stages.record.admit.admit_all` with the session's keys, in a thread."""


@dataclass(frozen=True, slots=True)
class Restored:
    """A fold, and what it was restored from. Call `fold.drain()` next."""

    fold: Fold
    event_seq: int = 0
    """Stream sequence of the session's last event; 0: there is none."""
    arrivals: Sequence[Arrival] = ()
    """The fragments that the event names: they are in no closed chunk."""


async def restore(jet: Reader, who: Identity, look: Look) -> Restored:
    """Return record's fold as its last event left it.

    Raises Unavailable (record.stream): a fragment that the event names cannot be read.
    """
    found = await last_recorded(jet, who.session)
    if found is None:
        return Restored(Fold(who))
    seq, event = found
    named = [] if isinstance(event, Ended) else event.state.named
    found_again = await jet.get_many(subjects.RECORDINGS, named)
    # What was taken stays taken: its headers were looked at then, and may read otherwise now.
    arrivals = await look([replace(message, headers={}) for message in found_again.values()])
    pieces = [arrival.folded for arrival in arrivals if arrival.folded is not None]
    if len(pieces) < len(named):
        raise Unavailable(
            f"{len(named) - len(pieces)} fragments of the checkpoint of {who.session} cannot be read",
            code="record.stream",
        )
    fold = Fold.restore(who, event.state, pieces)
    fold.ended = isinstance(event, Ended)
    return Restored(fold, seq, arrivals)
