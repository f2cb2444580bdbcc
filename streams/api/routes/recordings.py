"""The routes of session-recorder: the recordings of the host that serves them, and their chunks."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from schemas.api.requests import RecordingQuery, RecordingStart
from schemas.api.responses import ChunkPage, RecordingPage, RecordingState, UploadProgress
from streams.api.acted import STARTED, STOPPED, UPLOADED
from streams.api.answers import CREATED, PROBLEMS
from streams.api.asked_sessions import about_recording, recorded_settings
from streams.api.auth import caller_of
from streams.api.commands import Sending
from streams.api.looked import Reason, SessionId
from streams.api.parts import ApiParts
from streams.api.routes.chunks import After, Limit, chunk_page
from streams.api.routes.pipelines import OFFSET, RAW_BODY, upload
from streams.api.routes.sessions import Parts
from streams.host.own_recordings import OwnRecording

router = APIRouter(tags=["recordings"], responses=PROBLEMS)
listing = APIRouter(tags=["recordings"], responses=PROBLEMS)
"""Of session-storage, too."""


@router.post("/recordings/start", status_code=201, response_model=RecordingState, responses=CREATED)
async def start_recording(
    asked: RecordingStart,
    request: Request,
    parts: Parts,
    send: Sending,
    response: Response,
    reason: Reason = None,
) -> RecordingState:
    """Record a desktop of this host. The answer comes when the session is started.

    `recording_config` drives the encoder. The other members are those of every new session.
    A repeated Idempotency-Key answers the recording that the first request began, as it is now.
    """
    settings, about = recorded_settings(asked, parts.settings), about_recording(asked)
    session = asked.session_id or send.new_session_id(parts.recordings_here.host)
    await send.keyed.claim()
    async with parts.looks.audit.looking(caller_of(request), STARTED, session, reason or ""):
        begun = await parts.recordings_here.start(
            session, settings, about, asked.seconds, cause=send.keyed.cause
        )
    response.headers["Location"] = f"/recordings/{session}"
    return _state(parts, begun)


@router.get("/recordings", response_model=RecordingPage)
async def list_recordings(parts: Parts, wanted: Annotated[RecordingQuery, Query()]) -> RecordingPage:
    """A page of the recordings of this host since its recorder started, the oldest first."""
    found, after = parts.recordings_here.page(wanted.after, wanted.limit)
    return RecordingPage(recordings=[_state(parts, one) for one in found], next=after or None)


@router.get("/recordings/{session_id}", response_model=RecordingState)
async def show_recording(session_id: SessionId, parts: Parts) -> RecordingState:
    """One recording of this host."""
    return _state(parts, parts.recordings_here.one(session_id))


@router.post("/recordings/{session_id}/stop", response_model=RecordingState, dependencies=STOPPED)
async def stop_recording(session_id: SessionId, parts: Parts) -> RecordingState:
    """End a recording in order. Its session is sealed when all of it is stored."""
    return _state(parts, parts.recordings_here.stop(session_id))


@router.delete("/recordings/{session_id}", response_model=RecordingState, dependencies=STOPPED)
async def clean_up_recording(session_id: SessionId, parts: Parts) -> RecordingState:
    """End the running parts of a recording. Evidence is never destroyed here."""
    return _state(parts, parts.recordings_here.stop(session_id))


@listing.get("/chunks/{session_id}", response_model=ChunkPage)
async def list_chunks(
    session_id: SessionId, parts: Parts, after: After = "", limit: Limit = 100
) -> ChunkPage:
    """The stored chunks of a session by sequence."""
    return await chunk_page(parts, session_id, after, limit)


router.post(
    "/chunks/{session_id}/process",
    name="process_chunk",
    description="Hand bytes of a started session to the six stages.",
    response_model=UploadProgress,
    responses=OFFSET,
    openapi_extra=RAW_BODY,
    dependencies=UPLOADED,
)(upload)


def _state(parts: ApiParts, recording: OwnRecording) -> RecordingState:
    progress, picture = recording.progress, recording.picture
    return RecordingState(
        session_id=recording.session,
        host=parts.recordings_here.host,
        status=recording.state,
        resolution=f"{picture.width}x{picture.height}",
        frame_rate=picture.frame_rate,
        fragments=progress.fragments,
        acknowledged=progress.acknowledged,
        bytes=progress.plain,
        duration_s=progress.seconds,
        waits_for=progress.trouble,
        error=recording.error.code if recording.error else "",
    )
