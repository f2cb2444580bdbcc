"""Puts a look at a recording into the audit chain: a dependency of every route that hands out its bytes.

1. The entry is durable before a byte leaves. Policy may ask for a reason (X-Reason) and a second person.
2. The outcome follows when the last byte is sent, or when the transfer breaks off.
"""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends, Header, Path, Request

from streams.api.auth import caller_of
from streams.api.parts import parts_of

DOWNLOAD, SEALED = "download", "download_sealed"
"""Sealed bytes show nothing: they need neither reason nor second person."""
Reason = Annotated[
    str | None,
    Header(alias="X-Reason", max_length=200, description="Why, for the audit chain; policy may ask for it."),
]


def looked(action: str) -> Any:
    """The dependency of a route. action: as streams/event_store/looks.py names it."""

    async def look(
        request: Request, session_id: Annotated[str, Path()], reason: Reason = None
    ) -> AsyncIterator[None]:
        sealed = action == DOWNLOAD and request.query_params.get("form") == "sealed"
        looks, name = parts_of(request).looks, SEALED if sealed else action
        async with looks.look(caller_of(request), name, session_id, reason or ""):
            yield

    return Depends(look)


DOWNLOADED, SEALED_READ = [looked(DOWNLOAD)], [looked(SEALED)]
EXPORTED, MANIFEST_READ, HISTORY_READ = [looked("export_evidence")], [looked("manifest")], [looked("history")]
"""For the routes that hand these out."""
