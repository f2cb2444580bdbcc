"""Answers with a stored file, or with a range of it: piece by piece, so a slow reader holds little memory."""

import asyncio
from collections.abc import AsyncGenerator

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from schemas.errors import Unavailable
from schemas.ports import OpenBlob
from streams.api.conditions import OCTETS, Conditions, Selected, Thing
from streams.api.transfers import Pieces

PIECE_BYTES = 256 << 10


class BlobAnswer(Pieces):
    """The selected bytes. The blob is closed when the answer was sent, or could not be."""

    def __init__(self, blob: OpenBlob, selected: Selected, media_type: str) -> None:
        self._blob, self._span = blob, selected.span
        super().__init__(self._read(), selected.status, selected.headers, media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._blob.close()

    async def _read(self) -> AsyncGenerator[bytes, None]:
        at, end = self._span.first, self._span.end
        while at < end:
            piece = await asyncio.to_thread(self._blob.read_at, at, min(PIECE_BYTES, end - at))
            if not piece:
                raise Unavailable("a stored file became shorter while it was read", code="blobs.io")
            at += len(piece)
            yield piece


def answer(blob: OpenBlob, etag: str, asked: Conditions, media_type: str = OCTETS) -> Response:
    """The answer to a GET or HEAD with its conditions. Closes the blob. Raises Stale (request.if_match)."""
    try:
        selected = asked.select(Thing(blob.size, etag, media_type))
    except BaseException:
        blob.close()
        raise
    if isinstance(selected, Selected):
        return BlobAnswer(blob, selected, media_type)
    blob.close()
    return selected
