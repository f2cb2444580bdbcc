"""Owns the platform's own ending of a recording: an `end` fragment that names exactly what was taken.

1. It names the tails that record's fold reaches over everything before it, so the same fold is run here, over
   the same fragments.
2. It is appended expecting the last sequence that was read: a fragment that comes meanwhile is a Conflict,
   and the fold is taken further. Nothing can stand between what the end names and the end. A host that hears
   of the request sends nothing more; one that does not is outrun only when it rests.
3. What was let go since the fold was taken up cannot be walked any more, so it is taken up again. The log
   says so before anything goes: it is asked after every walk.
4. After a lost ack the fold meets our own end and is `ended`: nothing is sent twice.
5. Its time is that of the request, so it is the same fragment whoever sends it, and whenever.
"""

import asyncio
import logging
from collections.abc import Sequence

from handlers.fragments import end_fragment
from handlers.session import Session
from handlers.stages.fold_terms import Identity
from handlers.stages.record import Fold
from schemas import subjects
from schemas.errors import Conflict
from schemas.jetstream import Message
from schemas.lifecycle_events import EndRequested
from schemas.ports import Jet, Signers
from streams.arrival import Arrival, look
from streams.lifecycle import EventLog
from streams.restore import Look, restore

TRIES = 100
WALK_BYTES = 8 << 20

log = logging.getLogger("lucid.ending")


async def send_end(jet: Jet, session: Session, request: EndRequested, signers: Signers) -> bool:
    """End the recording as the request says; False when it has ended already. Safe to repeat.

    Raises Conflict (end.busy, end.released): the host sends too fast, or what it sent was let go; try again.
    """
    created = session.created
    assert created is not None
    subject, host_key = subjects.recording(created.host, session.id), created.host_key

    async def check(messages: Sequence[Message]) -> list[Arrival]:
        return await asyncio.to_thread(look, messages, host_key, signers.publics)

    fold = (await restore(jet, Identity.of(created, session.intake), check)).fold
    position, closed = fold.at, fold.next_index
    if not fold.ended:
        fold.drain()
    last = await jet.last(subjects.RECORDINGS, subject)
    tail = last.seq if last is not None and last.seq <= position else 0  # what was folded may be purged
    for _ in range(TRIES):
        read = await _walk(jet, subject, fold, position, check)
        session = await EventLog(jet).advance(session)
        if session.released_chunks > closed:
            raise Conflict(f"what {session.id} was made of went while it was read", code="end.released")
        if fold.ended:
            return False
        position, tail = read, read if read > position else tail
        scout = Fold.restore(fold.identity, fold.state(), fold.open_pieces())
        scout.force()
        signer = signers.at(request.at_us)
        end = end_fragment(created.uid, request.end, request.reason, scout.tails(), request.at_us, signer)
        try:
            await jet.append(subject, end, tail)
        except Conflict:
            continue
        log.info("end_sent session=%s end=%s reason=%s", session.id, request.end, request.reason)
        return True
    raise Conflict(f"the host of {session.id} sends faster than it can be ended", code="end.busy")


async def _walk(jet: Jet, subject: str, fold: Fold, position: int, check: Look) -> int:
    more = True
    while more:
        messages, more = await jet.batch(subjects.RECORDINGS, subject, position + 1, max_bytes=WALK_BYTES)
        for arrival in await check(messages):
            if arrival.piece is not None:
                fold.take(arrival.piece)
        position = messages[-1].seq if messages else position
    return position
