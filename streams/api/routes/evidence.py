"""The routes to a sealed session's manifest, history and evidence copy, and to any session's live state."""

import asyncio
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import iterate_in_threadpool

from schemas.errors import EvidenceFalse
from schemas.format.digest import h
from schemas.format.file_names import stored_manifest
from streams.api import live
from streams.api.live import LiveEvents
from streams.api.looked import EXPORTED, HISTORY_READ, MANIFEST_READ
from streams.api.problems import RESPONSES
from streams.api.routes.sessions import PREFIX, Parts, SessionId
from streams.evidence.evidence_zip import evidence_zip
from streams.evidence.sealed_session import load_sealed

ZIP, DSSE, LINES = "application/zip", "application/json", "application/x-ndjson"
LastEventId = Annotated[str | None, Header(alias="Last-Event-ID", max_length=40)]

router = APIRouter(prefix=PREFIX, tags=["evidence"], responses=RESPONSES)


def _of(media_type: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {media_type: {}}}}


@router.get(
    "/{session_id}/manifest", response_class=Response, responses=_of(DSSE), dependencies=MANIFEST_READ
)
async def download_manifest(session_id: SessionId, parts: Parts) -> Response:
    """The newest signed manifest, byte for byte as it was sealed."""
    found = await load_sealed(parts.jet, parts.data, session_id)
    name = stored_manifest(found.session.uid, found.session.seals[-1].seal_no)
    envelope = await asyncio.to_thread(parts.evidence.manifests.read, name)
    if envelope is None:
        raise EvidenceFalse(f"{name} is not in the store", code="manifest.missing", place=name)
    return Response(envelope, media_type=DSSE, headers={"ETag": f'"{h(envelope).hex()}"'})


@router.get("/{session_id}/history", response_class=Response, responses=_of(LINES), dependencies=HISTORY_READ)
async def download_history(session_id: SessionId, parts: Parts) -> Response:
    """Every event of the session's log, one a line, as it is stored."""
    await parts.log.existing(session_id)
    events = await parts.log.history(session_id)
    return Response(b"".join(event + b"\n" for event in events), media_type=LINES)


@router.get("/{session_id}/evidence", response_class=Response, responses=_of(ZIP), dependencies=EXPORTED)
async def download_evidence(session_id: SessionId, parts: Parts) -> Response:
    """The evidence copy as a zip: unpack it and run `lucid verify` on the folder."""
    found = await load_sealed(parts.jet, parts.data, session_id)
    packed = await asyncio.to_thread(_begun, evidence_zip(found.evidence))
    name = f'attachment; filename="{session_id}.zip"'
    return StreamingResponse(
        iterate_in_threadpool(packed), media_type=ZIP, headers={"Content-Disposition": name}
    )


@router.get("/{session_id}/events", response_class=Response, responses=_of(live.MEDIA_TYPE))
async def follow_events(
    session_id: SessionId, request: Request, parts: Parts, last_event_id: LastEventId = None
) -> Response:
    """The session's live state as server-sent events: its log, and the steps of its chunks."""
    await parts.log.existing(session_id)
    streams: LiveEvents = request.app.state.live
    events = streams.follow(session_id, last_event_id)
    return StreamingResponse(events, media_type=live.MEDIA_TYPE, headers={"Cache-Control": "no-store"})


def _begun(packed: Iterator[bytes]) -> Iterator[bytes]:
    """The zip after its first bytes were made: an error of the store then still gets its own status."""
    first = next(packed, b"")

    def rest() -> Iterator[bytes]:
        yield first
        yield from packed

    return rest()
