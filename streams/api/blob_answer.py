"""Answers with a stored file, or with a range of it: piece by piece, so a slow reader holds little memory."""

import asyncio
from collections.abc import AsyncGenerator

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from schemas.errors import Unavailable
from schemas.ports import OpenBlob
from streams.api import ranges
from streams.api.downloads import OCTETS, outside
from streams.api.transfers import Pieces

PIECE_BYTES = 256 << 10


class BlobAnswer(Pieces):
    """The bytes of `span`. The blob is closed when the answer was sent, or could not be."""

    def __init__(self, blob: OpenBlob, span: ranges.Span, status: int, headers: dict[str, str]) -> None:
        self._blob, self._span, self._is_head = blob, span, False
        headers = {**headers, "Content-Length": str(span.size)}
        super().__init__(self._read(), status, headers, headers["Content-Type"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._is_head = scope["method"] == "HEAD"
            await super().__call__(scope, receive, send)
        finally:
            self._blob.close()

    async def _read(self) -> AsyncGenerator[bytes, None]:
        at, end = self._span.first, self._span.end
        while at < end and not self._is_head:
            piece = await asyncio.to_thread(self._blob.read_at, at, min(PIECE_BYTES, end - at))
            if not piece:
                raise Unavailable("a stored file became shorter while it was read", code="blobs.io")
            at += len(piece)
            yield piece


def answer(blob: OpenBlob, etag: str, asked: Headers, media_type: str = OCTETS) -> Response:
    """The answer to a GET or HEAD with its conditions: If-None-Match, Range, If-Range. Closes the blob."""
    headers = {
        "Content-Type": media_type,
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
    }
    if matches(asked.get("if-none-match"), etag):
        blob.close()
        return Response(None, 304, headers)
    wanted = asked.get("range") if asked.get("if-range", etag) == etag else None
    try:
        span = ranges.wanted(wanted, blob.size)
    except ValueError:
        size = blob.size
        blob.close()
        return outside(size)
    if span is None:
        return BlobAnswer(blob, ranges.Span(0, blob.size), 200, headers)
    headers["Content-Range"] = f"bytes {span.first}-{span.end - 1}/{blob.size}"
    return BlobAnswer(blob, span, 206, headers)


def matches(header: str | None, etag: str) -> bool:
    """Whether an If-None-Match names this ETag (RFC 9110 §13.1.2: weakly compared)."""
    if header is None:
        return False
    named = [one.strip().removeprefix("W/") for one in header.split(",")]
    return "*" in named or etag in named
