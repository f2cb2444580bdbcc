"""Puts a look at a recording into the audit chain: a dependency of every route that hands out its bytes.

1. The entry is durable before a byte leaves. Policy may ask for a reason (X-Reason) and a second person.
2. Where a second person must allow the look, the transfer ends soon after the grant.
3. The outcome follows when the last byte is sent. A transfer that broke off has `failed`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

from fastapi import Depends, Header, Path, Request

from streams.api.auth import caller_of
from streams.api.parts import parts_of
from streams.api.transfers import check_while_sent, cut_off

DOWNLOAD, SEALED = "download", "download_sealed"
"""Sealed bytes show nothing: they need neither reason nor second person."""
Form = Literal["plain", "sealed"]
SessionId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,100}$", description="The session's id.")]
Reason = Annotated[
    str | None,
    Header(alias="X-Reason", max_length=200, description="Why, for the audit chain; policy may ask for it."),
]


def looked(action: str) -> Any:
    """The dependency of a route. action: as streams/event_store/looks.py names it."""

    async def look(request: Request, session_id: SessionId, reason: Reason = None) -> AsyncIterator[None]:
        async with _look(request, action, session_id, reason):
            yield

    return Depends(look)


async def _chunk_looked(
    request: Request, session_id: SessionId, form: Form = "plain", reason: Reason = None
) -> AsyncIterator[None]:
    """The dependency of a route whose caller chooses the form of the bytes."""
    action = SEALED if form == "sealed" else DOWNLOAD
    async with _look(request, action, session_id, reason):
        yield


@asynccontextmanager
async def _look(request: Request, action: str, session_id: str, reason: str | None) -> AsyncIterator[None]:
    looks, caller = parts_of(request).looks, caller_of(request)
    async with looks.look(caller, action, session_id, reason or "") as asked:
        if looks.needs_grant(action):
            check_while_sent(request, lambda: looks.still(caller, action, session_id))
        yield
        if code := cut_off(request):
            asked.outcome("failed", code)


DOWNLOADED, SEALED_READ = [looked(DOWNLOAD)], [looked(SEALED)]
CHUNK_DOWNLOADED = [Depends(_chunk_looked)]
EXPORTED, MANIFEST_READ, HISTORY_READ = [looked("export_evidence")], [looked("manifest")], [looked("history")]
"""For the routes that hand these out."""
