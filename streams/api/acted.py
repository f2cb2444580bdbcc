"""Puts an act of a person into the audit chain, if no command does: a recording of this host, an upload.

1. The entry is durable before anything is done, and before a byte of the body is read.
2. One request has one entry and one outcome, however many bytes it brings.
3. Refused requests of the routes themselves get their outcome, too: its code is that of the answer.
"""

from collections.abc import AsyncIterator
from typing import Any

from fastapi import Depends, Request

from streams.api.auth import caller_of
from streams.api.looked import Reason, SessionId
from streams.api.parts import parts_of


def acted(action: str) -> Any:
    """The dependency of a route that changes the session of its path."""

    async def act(request: Request, session_id: SessionId, reason: Reason = None) -> AsyncIterator[None]:
        audit = parts_of(request).looks.audit
        async with audit.looking(caller_of(request), action, session_id, reason or ""):
            yield

    return Depends(act)


STARTED = "record_start"
"""The route names its session itself."""
STOPPED, UPLOADED, STORED = [acted("record_stop")], [acted("upload")], [acted("store_chunk")]
"""For the routes that do these."""
