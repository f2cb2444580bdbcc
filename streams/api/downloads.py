"""Streams bytes of a session to a caller: one chunk, or the whole recording, also while it grows.

1. Bytes leave chunk by chunk, each compared with its digest before. A chunk that does not open ends the
   transfer: the caller then gets fewer bytes than Content-Length said.
2. A key that is erased during a transfer ends it, too.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from fastapi.responses import Response

from handlers.crypto.keys import SessionKeys
from schemas.errors import RefusedByState
from streams.api import ranges
from streams.api.conditions import NO_STORE, Conditions, Selected, Thing
from streams.api.transfers import Pieces, Transfers, begun
from streams.evidence.stored_chunks import StoredChunk, StoredChunks
from streams.keys.held_keys import HeldKeys
from streams.keys.keystore import KeyStore

Bytes = AsyncGenerator[memoryview, None]
Part = tuple[StoredChunk, slice]
"""A chunk, and the place of the wanted bytes in it."""


@dataclass(frozen=True, slots=True)
class Downloads:
    """The downloads of one caller from one session. Errors of the first chunk come before any byte."""

    transfers: Transfers
    keys: KeyStore
    stored: StoredChunks
    caller: str

    async def recording(self, asked: Conditions, headers: dict[str, str]) -> Response:
        """The answer with the plain bytes of a recording. One that grows has no ETag and no total length."""
        chunks, session = self.stored.of_track(), self.stored.session
        size = sum(chunk.entry.plain for chunk in chunks)
        etag = f'"{session.seals[-1].manifest.hex()}-plain"' if session.sealed else ""

        def pieces(span: ranges.Span) -> Bytes:
            return self._bytes(_within(chunks, span))

        return await _answer(pieces, Thing(size, etag, cache=NO_STORE, headers=headers), asked)

    async def plain(self, chunk: StoredChunk, asked: Conditions) -> Response:
        """The answer with the plain bytes of one chunk."""
        etag = f'"{chunk.entry.digest.hex()}-plain"'

        def pieces(span: ranges.Span) -> Bytes:
            return self._bytes([(chunk, slice(span.first, span.end))])

        return await _answer(pieces, Thing(chunk.entry.plain, etag, cache=NO_STORE), asked)

    async def sealed(self, chunk: StoredChunk, asked: Conditions) -> Response:
        """The answer with one chunk as it is stored."""

        async def read(wanted: slice) -> memoryview:
            return memoryview(await self.stored.sealed(chunk))[wanted]

        async def nothing() -> None:
            """Sealed bytes need no key."""

        def pieces(span: ranges.Span) -> Bytes:
            reads = [partial(read, slice(span.first, span.end))]
            return self.transfers.pieces(self.caller, reads, nothing)

        return await _answer(pieces, Thing(chunk.entry.sealed, f'"{chunk.entry.digest.hex()}"'), asked)

    async def _bytes(self, parts: Sequence[Part]) -> Bytes:
        session = self.stored.session
        async with self.keys.using(session.uid, session.dek_id) as held:

            async def check() -> SessionKeys:
                return await usable(self.keys, held, session.id)

            async def read(chunk: StoredChunk, wanted: slice) -> memoryview:
                return memoryview(await self.stored.plain(chunk, await check()))[wanted]

            reads = (partial(read, chunk, wanted) for chunk, wanted in parts)
            async with aclosing(self.transfers.pieces(self.caller, reads, check)) as pieces:
                async for piece in pieces:
                    yield piece


async def _answer(pieces: Callable[[ranges.Span], Bytes], thing: Thing, asked: Conditions) -> Response:
    """The answer with the wanted bytes, once the first ones are there."""
    selected = asked.select(thing)
    if not isinstance(selected, Selected):
        return selected
    return Pieces(await begun(pieces(selected.span)), selected.status, selected.headers, thing.media_type)


def _within(chunks: Sequence[StoredChunk], span: ranges.Span) -> list[Part]:
    """The chunks that hold bytes of the span, each with the place of these bytes in it."""
    parts, at = [], 0
    for chunk in chunks:
        begin, at = at, at + chunk.entry.plain
        if at > span.first and begin < span.end:
            parts.append((chunk, slice(max(span.first - begin, 0), min(span.end - begin, chunk.entry.plain))))
    return parts


async def usable(keys: KeyStore, held: HeldKeys | None, session_id: str) -> SessionKeys:
    """Keys that were not erased until now. Raises RefusedByState (evidence.destroyed, keys.shredded)."""
    if held is None:
        raise RefusedByState(
            f"session {session_id} was destroyed: its key is gone", code="evidence.destroyed"
        )
    await keys.check(held)
    return held.keys
