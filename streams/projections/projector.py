"""Makes the documents of the read models from LIFECYCLE, and keeps them up to date.

1. It starts at the position stored with the documents. It follows the log beside the directory and after it:
   making documents again delays neither a start nor a command.
2. A document is stored with the sequence of its session's last event, and an older one never replaces it. So
   redelivery, another order and a second projector change nothing.
3. A key that cannot be read now stops the batch, which is tried again: no document is stored without its
   tokens meanwhile.
4. If a rebuild has put another generation in its place, it goes on from that one's position.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing

from handlers.crypto.blind_index import BlindIndex
from handlers.lifecycle.session import Session
from handlers.views.document import VERSION, document, sealed_details
from schemas.config.logs import logger
from schemas.errors import Conflict, LucidError
from schemas.ports import Jet
from schemas.ports.read_models import Generation, SessionDocument, Views
from streams.keys.keystore import KeyStore
from streams.projections.changes import Changes, log_id
from streams.projections.read_details import read_details
from streams.scheduling.retry import retry

RETRY_S = 10.0
EMPTY_S = 0.2
LOOK_S = 2.0
"""How soon the projector of a quiet log sees that another generation is active."""

log = logger("lucid.views")


class Documents:
    """Makes documents of sessions: reads their personal fields, and keeps only tokens and the sealed blob."""

    def __init__(self, keys: KeyStore, index: BlindIndex) -> None:
        self._keys, self._index = keys, index

    @property
    def key_id(self) -> str:
        """Names the index key of the tokens."""
        return self._index.key_id

    async def of(self, sessions: Sequence[Session]) -> list[SessionDocument]:
        """A document for each session that was created. Raises Retryable: a key cannot be read now."""
        created = [one for one in sessions if one.created is not None]
        fields = await read_details(self._keys, map(sealed_details, created), until_read=True)
        tokens = [self._index.tokens(one) if one else () for one in fields]
        return [document(one, found) for one, found in zip(created, tokens, strict=True)]


class Projector:
    """One for each process that answers commands. `run` keeps the documents up to date."""

    def __init__(
        self, jet: Jet, views: Views, documents: Documents, ready: Callable[[], Awaitable[None]]
    ) -> None:
        """ready: returns when the process can answer commands."""
        self._jet, self._views, self._documents, self._ready = jet, views, documents, ready

    async def run(self) -> None:
        """Follow the log until cancelled. A failure stops the documents for RETRY_S, and no other service."""
        await retry(self._ready)
        while True:
            try:
                await self._follow()
                continue
            except LucidError as error:
                log.warning("views_stopped", error=error, again_s=RETRY_S)
            except Exception:
                log.exception("views_failed", again_s=RETRY_S)
            await asyncio.sleep(RETRY_S)

    async def _follow(self) -> None:
        """Follow until another generation is active."""
        generation = await self._begin()
        written = generation.position
        async with aclosing(Changes(self._jet, written, LOOK_S).batches()) as batches:
            async for batch in batches:
                try:
                    if batch.position > written:
                        documents = await self._documents.of(batch.sessions)
                        await self._views.apply(generation.number, documents, batch.position)
                        written = batch.position
                    elif (await self._views.active()).number != generation.number:
                        return
                except Conflict:
                    return

    async def _begin(self) -> Generation:
        """The generation of this log, and its position."""
        while not (name := (await log_id(self._jet))[0]):
            await self._views.begin("")
            await asyncio.sleep(EMPTY_S)
        name, last_seq = await log_id(self._jet)
        source = source_name(name, self._documents)
        generation = await self._views.begin(source)
        if generation.position > last_seq:  # the log was restored to an older state
            await self._views.begin("")
            generation = await self._views.begin(source)
        return generation


def source_name(log_name: str, documents: Documents) -> str:
    """The name of the source of documents: the log, the index key of the tokens, the documents' version."""
    return f"{log_name}.{documents.key_id}.{VERSION}"
