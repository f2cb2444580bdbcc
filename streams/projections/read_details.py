"""Reads the personal fields of sessions with their keys: for the tokens of documents, and for pages.

1. A session that is destroyed, or will be, has no fields. Neither has one with an erased key.
2. A key that cannot be read hides the fields of its own session alone; the log says so.
3. A document outlives a passing error. So for a document such an error is raised; a lost key is none.
"""

import asyncio
from collections.abc import Iterable

from handlers.crypto.details import open_details
from schemas.config.logs import logger
from schemas.errors import LucidError, Retryable
from schemas.events.details import Details
from streams.keys.keystore import KeyStore

AT_ONCE = 16
"""Keys that are read at once."""

log = logger("lucid.details")

Sealed = tuple[bytes, int, bytes]
"""uid, revision and blob of a session's details."""


async def read_details(
    keys: KeyStore, sealed: Iterable[Sealed], *, until_read: bool = False
) -> list[Details | None]:
    """Return the fields of each session, in order; None: it has none, or no key opens them.

    until_read: a passing error of a key is raised (Retryable).
    """
    places = asyncio.Semaphore(AT_ONCE)

    async def read(uid: bytes, revision: int, blob: bytes) -> Details | None:
        if not blob:
            return None
        async with places:
            return await _opened(keys, (uid, revision, blob), until_read)

    return await asyncio.gather(*(read(*one) for one in sealed))


async def _opened(keys: KeyStore, sealed: Sealed, until_read: bool) -> Details | None:
    uid, revision, blob = sealed
    try:
        async with keys.using(uid) as held:
            return open_details(held.keys.dek, uid, revision, blob) if held else None
    except LucidError as error:
        # The key was made before the fields were sealed: a key that is not there is lost, and not late.
        if until_read and isinstance(error, Retryable) and error.code != "keys.pending":
            raise
        log.warning("details_unreadable", uid=uid.hex(), revision=revision, error=error)
        return None
