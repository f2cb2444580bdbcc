"""The routes of session-pipeline: pipelines of sessions, and uploads over HTTP into the recording stream."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Request, Response
from pydantic import WithJsonSchema

from schemas.api.requests import Reasoned, SessionCreate
from schemas.api.responses import PipelineShown, UploadProgress
from schemas.events.session import State
from streams.api.acted import UPLOADED
from streams.api.answers import CREATED, PROBLEMS, Answers, header
from streams.api.arriving import arriving
from streams.api.asked_sessions import opened
from streams.api.commands import Asking, Sending
from streams.api.conditions import OCTETS
from streams.api.looked import SessionId
from streams.api.routes.sessions import Asked, Parts
from streams.api.shapes import pipeline_shown

PREFIX = "/pipelines"
UploadOffset = Annotated[
    int | None,
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": 2**53 - 1}),
    Header(
        ge=0, lt=2**53, description="Where the body's first byte belongs. Bytes that are there are skipped."
    ),
]
RAW_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {OCTETS: {"schema": {"type": "string", "format": "binary"}}}}
}
OFFSET: Answers = {200: {"headers": {"Upload-Offset": header("Where the next byte belongs.")}}}

router = APIRouter(prefix=PREFIX, tags=["pipelines"], responses=PROBLEMS)


@router.post("", status_code=201, response_model=PipelineShown, responses=CREATED)
async def create_pipeline(
    send: Sending, parts: Parts, response: Response, asked: Annotated[SessionCreate | None, Body()] = None
) -> PipelineShown:
    """Create a session with its pipeline. It takes bytes when it is started."""
    asked = asked or SessionCreate()
    shown = pipeline_shown(
        await send.send("open", opened(asked, asked.id or send.new_session_id(), parts.settings))
    )
    response.headers["Location"] = f"{PREFIX}/{shown.session_id}/status"
    return shown


@router.post("/{session_id}/start", response_model=PipelineShown)
async def start_pipeline(session_id: SessionId, send: Sending) -> PipelineShown:
    """Start the session: from now on its pipeline takes bytes."""
    return pipeline_shown(await send.send("start", {"session": session_id}))


@router.post("/{session_id}/stop", response_model=PipelineShown)
async def stop_pipeline(session_id: SessionId, send: Sending, asked: Asked = None) -> PipelineShown:
    """Stop the session: all bytes taken are processed and sealed."""
    body = {"session": session_id, "reason": (asked or Reasoned()).reason}
    return pipeline_shown(await send.send("stop", body))


@router.get("/{session_id}/status", response_model=PipelineShown)
async def pipeline_status(session_id: SessionId, asking: Asking) -> PipelineShown:
    """How far the six stages are."""
    return pipeline_shown(await asking.show(session_id))


@router.delete("/{session_id}", response_model=PipelineShown)
async def clean_up_pipeline(session_id: SessionId, send: Sending) -> PipelineShown:
    """End the running parts of a session. Nothing is destroyed here, whatever the state of the session."""
    shown = await send.show(session_id)
    if shown["state"] in (State.ACTIVE, State.PAUSED):
        shown = await send.send("stop", {"session": session_id, "reason": "cleaned_up"})
    return pipeline_shown(shown)


@router.post(
    "/{session_id}/chunks",
    response_model=UploadProgress,
    responses=OFFSET,
    openapi_extra=RAW_BODY,
    dependencies=UPLOADED,
)
async def upload(
    session_id: SessionId,
    request: Request,
    parts: Parts,
    response: Response,
    upload_offset: UploadOffset = None,
) -> UploadProgress:
    """Append bytes to a started session. The answer says that all of them are durable."""
    offset = await parts.uploads.send(session_id, arriving(request), upload_offset)
    response.headers["Upload-Offset"] = str(offset)
    return UploadProgress(session_id=session_id, offset=offset)


@router.get("/{session_id}/chunks", response_model=UploadProgress, responses=OFFSET)
async def upload_progress(session_id: SessionId, parts: Parts, response: Response) -> UploadProgress:
    """How far an upload came: the next byte belongs at `offset`."""
    offset = await parts.uploads.offset(session_id)
    response.headers["Upload-Offset"] = str(offset)
    return UploadProgress(session_id=session_id, offset=offset)
