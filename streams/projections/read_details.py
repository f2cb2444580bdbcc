"""Reads the personal fields of sessions with their keys: for the tokens of documents, and for pages.

1. A session that is destroyed, or will be, has no fields. Neither has one with an erased key.
2. A key that cannot be read hides the fields of its own session alone; the log says so.
"""

import asyncio
from collections.abc import Iterable

from handlers.crypto.details import open_details
from schemas.config.logs import logger
from schemas.errors import LucidError
from schemas.events.details import Details
from streams.keys.keystore import KeyStore

AT_ONCE = 16
"""Keys that are read at once."""

log = logger("lucid.details")

Sealed = tuple[bytes, int, bytes]
"""uid, revision and blob of a session's details."""


async def read_details(keys: KeyStore, sealed: Iterable[Sealed]) -> list[Details | None]:
    """Return the fields of each session, in order; None: it has none, or no key opens them."""
    places = asyncio.Semaphore(AT_ONCE)

    async def read(uid: bytes, revision: int, blob: bytes) -> Details | None:
        if not blob:
            return None
        async with places:
            return await _opened(keys, uid, revision, blob)

    return await asyncio.gather(*(read(*one) for one in sealed))


async def _opened(keys: KeyStore, uid: bytes, revision: int, blob: bytes) -> Details | None:
    try:
        async with keys.using(uid) as held:
            return open_details(held.keys.dek, uid, revision, blob) if held else None
    except LucidError as error:
        log.warning("details_unreadable", uid=uid.hex(), revision=revision, error=error)
        return None
