"""Owns the platform's own ending of a recording: an `end` in the stream, which marks where it stops.

1. All that stands before it is taken, nothing that stands behind it: no host can keep it out.
2. It names no tracks: only record's fold knows what stands before it, and says it in `ended`. From that the
   seal makes the `end` of the manifest (handlers/seal/manifest.py).
3. A host that hears of the request sends what is under way, and rests; one that does not is cut off.
4. Its time is that of the request: it is the same fragment whoever sends it, whenever, and however often.
"""

import asyncio
import logging

from handlers.format.fragment import end_fragment
from handlers.lifecycle.session import Session
from schemas import subjects
from schemas.events.session import EndRequested
from schemas.ports import Jet, Signers

REST_S = 0.2
"""A host that sends nothing for so long has finished."""
GRACE_S = 2.0
"""How long a host may take to finish what is under way."""

log = logging.getLogger("lucid.ending")


async def send_end(jet: Jet, session: Session, request: EndRequested, signers: Signers) -> None:
    """End the recording as the request says, when its host rests, and soon if it does not. Safe to repeat."""
    created, clock = session.created, asyncio.get_running_loop().time
    assert created is not None
    subject = subjects.recording(created.host, session.id)
    signer = await asyncio.to_thread(signers.at, request.at_us)
    end = end_fragment(created.uid, request.end, request.reason, (), request.at_us, signer)
    latest_s = clock() + GRACE_S
    last = await jet.last(subjects.RECORDINGS, subject)
    while clock() < latest_s:
        await asyncio.sleep(REST_S)
        before, last = last, await jet.last(subjects.RECORDINGS, subject)
        if before == last:
            break
    if last is not None and last.data == end:
        return  # its answer was lost
    await jet.publish(subject, end)
    log.info("end_sent session=%s end=%s reason=%s", session.id, request.end, request.reason)
