"""Answers with a stored file, or with a range of it: piece by piece, so a slow reader holds little memory."""

import asyncio

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from schemas.errors import Unavailable
from schemas.ports import OpenBlob
from streams.api import ranges
from streams.api.downloads import OCTETS, outside

PIECE_BYTES = 256 << 10


class BlobAnswer(Response):
    """The bytes of `span`. The blob is closed when the answer was sent, or could not be."""

    def __init__(self, blob: OpenBlob, span: ranges.Span, status: int, headers: dict[str, str]) -> None:
        super().__init__(None, status, {**headers, "Content-Length": str(span.size)})
        self._blob, self._span = blob, span

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            at, end = self._span.first, self._span.end
            while scope["method"] != "HEAD" and at < end:
                piece = await asyncio.to_thread(self._blob.read_at, at, min(PIECE_BYTES, end - at))
                if not piece:
                    raise Unavailable("a stored file became shorter while it was read", code="blobs.io")
                at += len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._blob.close()


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
