"""The routes to a sealed session's manifest, history and evidence copy, and to any session's live state."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response

from schemas.errors import EvidenceFalse
from schemas.format.digest import h
from schemas.format.file_names import stored_manifest
from streams.api import live
from streams.api.auth import caller_of
from streams.api.live import LiveEvents
from streams.api.looked import EXPORTED, HISTORY_READ, MANIFEST_READ, SessionId
from streams.api.problems import RESPONSES
from streams.api.routes.sessions import PREFIX, Parts
from streams.api.transfers import Pieces, begun
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
async def download_evidence(session_id: SessionId, request: Request, parts: Parts) -> Response:
    """The evidence copy as a zip: unpack it and run `lucid verify` on the folder."""
    found = await load_sealed(parts.jet, parts.data, session_id)
    packed = await asyncio.to_thread(evidence_zip, found.evidence)
    body = await begun(parts.transfers.zipped(caller_of(request).subject, packed))
    name = f'attachment; filename="{session_id}.zip"'
    return Pieces(body, 200, {"Content-Disposition": name}, ZIP)


async def _place(request: Request) -> AsyncIterator[LiveEvents]:
    """The live streams, with a place for one more until its answer has ended."""
    streams: LiveEvents = request.app.state.live
    with streams.place(caller_of(request).subject):
        yield streams


@router.get("/{session_id}/events", response_class=Response, responses=_of(live.MEDIA_TYPE))
async def follow_events(
    session_id: SessionId,
    parts: Parts,
    streams: Annotated[LiveEvents, Depends(_place)],
    last_event_id: LastEventId = None,
) -> Response:
    """The session's live state as server-sent events: its log, and the steps of its chunks."""
    await parts.log.existing(session_id)
    events = streams.follow(session_id, last_event_id)
    return Pieces(events, 200, {"Cache-Control": "no-store"}, live.MEDIA_TYPE)
