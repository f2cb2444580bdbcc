"""Remembers which request an Idempotency-Key belongs to, so that no other request uses the same key.

    lucid.requests.<caller>.<key>     BLAKE3 keyed (request key, content of the request), 32 bytes

1. A key is claimed before its request is carried out. After a crash between both the same request finds its
   own claim, and goes on. Another request is refused.
2. The first append to a subject wins: of two requests at once one has the key, in any number of processes.
3. The mark and the name of the caller are keyed digests: a reader of the stream cannot test guesses about
   personal fields or persons.
4. A claim is forgotten after REQUEST_AGE_S (topology.py). The log of a session goes on to know its causes.
5. A caller has at most 1 / CALLERS of the stream, and TRIM_EVERY claims more. Behind that the caller's own
   oldest claims are forgotten, so that no single caller pushes out those of others.
"""

from blake3 import blake3

from handlers.crypto.primitives import same
from schemas import subjects
from schemas.config.logs import logger
from schemas.errors import RefusedByState
from schemas.ports import Jet
from streams.scheduling.retry import LOG_OUTAGE, retry, retry_conflicts

CALLERS = 8
"""So many callers that send without end can push out the claims of others."""
CLAIM_BYTES = 256
"""More than one claim takes in the stream."""
TRIM_EVERY = 256
"""The sequences of the stream after which the claims of a caller are counted."""

log = logger("lucid.api")


class RequestKeys:
    """One for each process that serves HTTP."""

    def __init__(self, jet: Jet, key: bytes) -> None:
        self._jet, self._key = jet, key

    async def claim(self, caller: str, name: str, content: bytes) -> None:
        """Return when the key belongs to a request of this content. Safe to repeat.

        name: of the caller's key, hex.
        Raises RefusedByState (idempotency.reused), Unavailable, Conflict (log.busy).
        """
        owner = blake3(b"caller\0" + caller.encode(), key=self._key).hexdigest(16)
        subject, mark = subjects.keyed_request(owner, name), blake3(content, key=self._key).digest()

        async def attempt() -> None:
            held = await self._jet.last(subjects.REQUESTS, subject)
            if held is None:
                seq = await self._jet.append(subject, mark, 0)  # a Conflict: another request, or a lost ack
                if seq % TRIM_EVERY == 0:  # after a crash here, a later claim of the caller trims
                    await self._trim(owner)
            elif not same(bytes(held.data), mark):
                raise RefusedByState(
                    "this Idempotency-Key belongs to an earlier request with another content",
                    code="idempotency.reused",
                    hint="repeat the first request as it was, or choose another key",
                )

        await retry_conflicts(lambda: retry(attempt, LOG_OUTAGE), "a request")

    async def _trim(self, owner: str) -> None:
        """Forget the oldest claims of a caller that has more than its part of the stream."""
        held = await self._jet.info(subjects.REQUESTS)
        count = max(held.max_bytes // (CALLERS * CLAIM_BYTES), 1)
        removed = await self._jet.keep_newest(subjects.REQUESTS, subjects.keyed_request(owner, "*"), count)
        if removed:
            log.warning("request_keys_forgotten", keys=removed, kept=count)
