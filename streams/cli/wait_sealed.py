"""Waits for the seal of a recording, or for the error, destruction or delay in its place."""

import asyncio
from typing import Any

from schemas.errors import RefusedByState, Unavailable
from schemas.events.session import State
from schemas.ports import Credential, Jet
from streams.control.client import call

SEALED_S = 600.0
"""How long a verb waits for the seal after the last fragment. The system goes on after that."""
SILENT_S = 60.0
"""How long no service may answer during the wait: a crashed service is soon back."""
ASK_S = 0.15


async def wait_sealed(jet: Jet, session: str, credential: Credential | None = None) -> dict[str, Any]:
    """Return the answer of `show` once the session is sealed.

    credential: of the host that recorded it; None: that of the connection counts.
    Raises Unavailable (seal.failed, seal.slow), RefusedByState (session.destroyed).
    """
    clock = asyncio.get_running_loop().time
    end_s, answered_s = clock() + SEALED_S, clock()
    while clock() < end_s:
        try:
            shown = await call(jet, "show", {"session": session}, credential=credential)
            answered_s = clock()
        except Unavailable:
            if clock() - answered_s > SILENT_S:
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
    """The error of a session that is destroyed while a verb works with it."""
    return RefusedByState(
        f"session {session} was destroyed",
        code="session.destroyed",
        hint=f"lucid sessions show {session}",
    )
