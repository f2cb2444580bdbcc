"""Owns the end of a recording as its verb waits for it: sealed, failed, destroyed by somebody, or late."""

import asyncio
from typing import Any

from schemas.errors import RefusedByState, Unavailable
from schemas.events.session import State
from schemas.ports import Jet
from streams.control.client import call

SEALED_S = 600.0
"""How long a seal may take after the last fragment before the verb gives up waiting. The system does not."""
SILENT_S = 60.0
"""How long nobody may answer while the seal is waited for: a service that crashed is soon back."""
ASK_S = 0.15


async def sealed(jet: Jet, session: str) -> dict[str, Any]:
    """What `show` says of the session once it is sealed.

    Raises Unavailable (seal.failed, seal.slow), RefusedByState (session.destroyed).
    """
    clock = asyncio.get_running_loop().time
    end_s, heard_s = clock() + SEALED_S, clock()
    while clock() < end_s:
        try:
            shown = await call(jet, "show", {"session": session})
            heard_s = clock()
        except Unavailable:
            if clock() - heard_s > SILENT_S:
                raise
            await asyncio.sleep(ASK_S)
            continue
        if shown["sealed"] and shown["state"] == State.STOPPED:
            return shown
        if shown["state"] in (State.CLEANUP, State.DESTROYED):
            raise destroyed(session)
        if shown["state"] == State.ERROR:
            raise Unavailable(
                f"session {session} is in ERROR: {shown['reason']}",
                code="seal.failed",
                hint=f"lucid recover {session}",
            )
        await asyncio.sleep(ASK_S)
    raise Unavailable(
        f"session {session} is not sealed after {SEALED_S:g} s; it will be when its chunks are stored",
        code="seal.slow",
        hint=f"lucid sessions show {session}",
    )


def destroyed(session: str) -> RefusedByState:
    """What is said of a session that goes while somebody looks at it."""
    return RefusedByState(
        f"session {session} was destroyed",
        code="session.destroyed",
        hint=f"lucid sessions show {session}",
    )
