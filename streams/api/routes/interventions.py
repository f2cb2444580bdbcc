"""The routes by which a person steps in: a session set aside or freed, ended without its host, or held."""

from typing import Annotated

from fastapi import APIRouter, Body

from schemas.api.requests import RecoverAsked
from schemas.api.responses import SessionShown
from streams.api.answers import PROBLEMS
from streams.api.commands import Sending
from streams.api.looked import SessionId
from streams.api.routes.sessions import PREFIX, Asked, ReasonQuery, commanded, reasoned

router = APIRouter(prefix=PREFIX + "/{session_id}", tags=["sessions"], responses=PROBLEMS)


@router.post("/error", response_model=SessionShown)
async def set_aside(session_id: SessionId, send: Sending, asked: Asked = None) -> SessionShown:
    """Set a session aside (ERROR): it stands still until it is recovered or destroyed."""
    return await commanded(send, "error", reasoned(session_id, asked))


@router.post("/recover", response_model=SessionShown)
async def recover_session(
    session_id: SessionId, send: Sending, asked: Annotated[RecoverAsked | None, Body()] = None
) -> SessionShown:
    """Let a session in ERROR work again (RECOVER); its missing chunks are made again.

    `accept_loss` gives up the chunks that cannot be made; the manifest names them. It needs ADMIN.
    """
    asked = asked or RecoverAsked()
    body = {**reasoned(session_id, asked), "accept_loss": asked.accept_loss}
    return await commanded(send, "recover", body)


@router.post("/abort", response_model=SessionShown)
async def abort_recording(session_id: SessionId, send: Sending, asked: Asked = None) -> SessionShown:
    """End a recording without its host: the fragments that came are processed and sealed."""
    return await commanded(send, "abort", reasoned(session_id, asked))


@router.post("/redrive", response_model=SessionShown)
async def redrive_session(session_id: SessionId, send: Sending, asked: Asked = None) -> SessionShown:
    """Make the missing chunks of a session again that is not sealed yet."""
    return await commanded(send, "redrive", reasoned(session_id, asked))


@router.put("/hold", response_model=SessionShown)
async def place_hold(session_id: SessionId, send: Sending, asked: Asked = None) -> SessionShown:
    """Place a legal hold: nobody destroys the session while it stands."""
    return await commanded(send, "hold", {**reasoned(session_id, asked), "held": True})


@router.delete("/hold", response_model=SessionShown)
async def lift_hold(session_id: SessionId, send: Sending, reason: ReasonQuery = "operator") -> SessionShown:
    """Lift the legal hold of a session."""
    return await commanded(send, "hold", {"session": session_id, "reason": reason, "held": False})
