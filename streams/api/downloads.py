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
from schemas.api.problem import problem_of
from schemas.errors import Misuse, RefusedByState
from streams.api import ranges
from streams.api.problems import respond
from streams.api.transfers import Pieces, Transfers, begun
from streams.evidence.stored_chunks import StoredChunk, StoredChunks
from streams.keys.held_keys import HeldKeys
from streams.keys.keystore import KeyStore

OCTETS = "application/octet-stream"

Bytes = AsyncGenerator[memoryview, None]
Part = tuple[StoredChunk, slice]
"""A chunk, and the place of the wanted bytes in it."""


def outside(size: int) -> Response:
    """The answer to a range that holds no byte."""
    error = Misuse(f"the range holds no byte of {size}", code="request.range")
    return respond(problem_of(error, 416), {"Content-Range": f"bytes */{size}"})


@dataclass(frozen=True, slots=True)
class Downloads:
    """The downloads of one caller from one session. Errors of the first chunk come before any byte."""

    transfers: Transfers
    keys: KeyStore
    stored: StoredChunks
    caller: str

    async def recording(self, range_header: str | None, headers: dict[str, str]) -> Response:
        """The answer with the plain bytes of a recording. One that grows has an unknown length."""
        chunks = self.stored.of_track()
        size = sum(chunk.entry.plain for chunk in chunks)
        total = str(size) if self.stored.session.sealed else "*"

        def pieces(span: ranges.Span) -> Bytes:
            return self._bytes(_within(chunks, span))

        return await _ranged(pieces, size, total, range_header, headers)

    async def plain(self, chunk: StoredChunk, range_header: str | None, headers: dict[str, str]) -> Response:
        """The answer with the plain bytes of one chunk."""
        size = chunk.entry.plain

        def pieces(span: ranges.Span) -> Bytes:
            return self._bytes([(chunk, slice(span.first, span.end))])

        return await _ranged(pieces, size, str(size), range_header, headers)

    async def sealed(self, chunk: StoredChunk, range_header: str | None, headers: dict[str, str]) -> Response:
        """The answer with one chunk as it is stored."""

        async def read(wanted: slice) -> memoryview:
            return memoryview(await self.stored.sealed(chunk))[wanted]

        async def nothing() -> None:
            """Sealed bytes need no key."""

        size = chunk.entry.sealed

        def pieces(span: ranges.Span) -> Bytes:
            reads = [partial(read, slice(span.first, span.end))]
            return self.transfers.pieces(self.caller, reads, nothing)

        return await _ranged(pieces, size, str(size), range_header, headers)

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


async def _ranged(
    pieces: Callable[[ranges.Span], Bytes],
    size: int,
    total: str,
    range_header: str | None,
    headers: dict[str, str],
) -> Response:
    """The answer with a range of the bytes, once its first ones are there."""
    headers = {**headers, "Accept-Ranges": "bytes"}
    try:
        span = ranges.wanted(range_header, size)
    except ValueError:
        return outside(size)
    taken = span or ranges.Span(0, size)
    headers["Content-Length"] = str(taken.size)
    if span is not None:
        headers["Content-Range"] = f"bytes {span.first}-{span.end - 1}/{total}"
    body = await begun(pieces(taken))
    return Pieces(body, 200 if span is None else 206, headers, OCTETS)


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
