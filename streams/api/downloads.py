"""Streams bytes of a session to a caller: one chunk, or the whole recording, also while it grows.

1. Bytes leave chunk by chunk, each compared with its digest before. A chunk that does not open ends the
   transfer: the caller then gets fewer bytes than Content-Length said.
2. A key that is erased during a transfer ends it, too.
"""

from collections.abc import AsyncIterator, Sequence

from fastapi.responses import Response, StreamingResponse

from handlers.crypto.keys import SessionKeys
from schemas.api.problem import problem_of
from schemas.errors import Misuse, RefusedByState
from streams.api import ranges
from streams.api.problems import respond
from streams.evidence.stored_chunks import StoredChunk, StoredChunks
from streams.keys.held_keys import HeldKeys
from streams.keys.keystore import KeyStore

OCTETS = "application/octet-stream"


def whole(data: bytes, range_header: str | None, headers: dict[str, str]) -> Response:
    """The answer with bytes in memory, or a part of them."""
    headers = {**headers, "Accept-Ranges": "bytes"}
    try:
        span = ranges.wanted(range_header, len(data))
    except ValueError:
        return outside(len(data))
    if span is None:
        return Response(data, media_type=OCTETS, headers=headers)
    headers["Content-Range"] = f"bytes {span.first}-{span.end - 1}/{len(data)}"
    return Response(data[span.first : span.end], 206, headers, OCTETS)


def outside(size: int) -> Response:
    """The answer to a range that holds no byte."""
    error = Misuse(f"the range holds no byte of {size}", code="request.range")
    return respond(problem_of(error, 416), {"Content-Range": f"bytes */{size}"})


def recording(
    stored: StoredChunks, keys: KeyStore, range_header: str | None, headers: dict[str, str]
) -> Response:
    """The answer with the plain bytes of a recording. One that grows has an unknown length."""
    chunks = stored.of_track()
    size = sum(chunk.entry.plain for chunk in chunks)
    total = str(size) if stored.session.sealed else "*"
    headers = {**headers, "Accept-Ranges": "bytes"}
    try:
        span = ranges.wanted(range_header, size)
    except ValueError:
        return outside(size)
    taken = span or ranges.Span(0, size)
    headers["Content-Length"] = str(taken.size)
    if span is not None:
        headers["Content-Range"] = f"bytes {span.first}-{span.end - 1}/{total}"
    body = _bytes(stored, chunks, keys, taken)
    return StreamingResponse(body, 200 if span is None else 206, headers, OCTETS)


async def _bytes(
    stored: StoredChunks, chunks: Sequence[StoredChunk], keys: KeyStore, span: ranges.Span
) -> AsyncIterator[bytes]:
    session, at = stored.session, 0
    async with keys.using(session.uid, session.dek_id) as held:
        for chunk in chunks:
            begin, at = at, at + chunk.entry.plain
            if at <= span.first:
                continue
            if begin >= span.end:
                return
            plain = await stored.plain(chunk, await usable(keys, held, session.id))
            yield plain[max(span.first - begin, 0) : span.end - begin]


async def usable(keys: KeyStore, held: HeldKeys | None, session_id: str) -> SessionKeys:
    """Keys that were not erased until now. Raises RefusedByState (evidence.destroyed, keys.shredded)."""
    if held is None:
        raise RefusedByState(
            f"session {session_id} was destroyed: its key is gone", code="evidence.destroyed"
        )
    await keys.check(held)
    return held.keys
