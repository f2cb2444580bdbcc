"""Remembers which request an Idempotency-Key belongs to, so that no other request uses the same key.

    lucid.requests.<key>     BLAKE3 keyed (request key, content of the request), 32 bytes

1. A key is claimed before its request is carried out. After a crash between both the same request finds its
   own claim, and goes on. Another request is refused.
2. The first append to a subject wins: of two requests at once one has the key, in any number of processes.
3. The mark is a keyed digest: a reader of the stream cannot test guesses about personal fields.
4. A claim is forgotten after REQUEST_AGE_S (topology.py). The log of a session goes on to know its causes.
"""

from blake3 import blake3

from handlers.crypto.primitives import same
from schemas import subjects
from schemas.errors import RefusedByState
from schemas.ports import Jet
from streams.scheduling.retry import LOG_OUTAGE, retry, retry_conflicts


class RequestKeys:
    """One for each process that serves HTTP."""

    def __init__(self, jet: Jet, key: bytes) -> None:
        self._jet, self._key = jet, key

    async def claim(self, name: str, content: bytes) -> None:
        """Return when the key belongs to a request of this content. Safe to repeat.

        name: of the key, hex. Raises RefusedByState (idempotency.reused), Unavailable, Conflict (log.busy).
        """
        subject, mark = subjects.keyed_request(name), blake3(content, key=self._key).digest()

        async def attempt() -> None:
            held = await self._jet.last(subjects.REQUESTS, subject)
            if held is None:
                await self._jet.append(subject, mark, 0)  # a Conflict: another request, or a lost ack
            elif not same(bytes(held.data), mark):
                raise RefusedByState(
                    "this Idempotency-Key belongs to an earlier request with another content",
                    code="idempotency.reused",
                    hint="repeat the first request as it was, or choose another key",
                )

        await retry_conflicts(lambda: retry(attempt, LOG_OUTAGE), "a request")
