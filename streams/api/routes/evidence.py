"""The routes to a sealed session's manifest, history and evidence copy, and to any session's live state."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import WithJsonSchema

from streams.api import live
from streams.api.answers import CACHE, DISPOSITION, LINES, PROBLEMS, ZIP, of_stream
from streams.api.auth import caller_of
from streams.api.conditions import NO_STORE
from streams.api.live import LiveEvents
from streams.api.looked import EXPORTED, HISTORY_READ, MANIFEST_READ, SessionId
from streams.api.routes.sessions import PREFIX, Parts
from streams.api.routes.trees import ENVELOPE, ENVELOPE_HEAD, get_manifest, head_manifest
from streams.api.transfers import Pieces, begun
from streams.evidence.evidence_zip import evidence_zip
from streams.evidence.sealed_session import load_sealed, require_seal
from streams.evidence.session_trees import existing

LastEventId = Annotated[
    str | None,
    WithJsonSchema({"type": "string", "pattern": "^([0-9]{1,15}-[0-9]{1,15})?$"}),
    Header(alias="Last-Event-ID", max_length=40, description="The id of the last event that came."),
]
Follow = Annotated[bool, Query(description="false: the events until now, then the end.")]

router = APIRouter(prefix=PREFIX, tags=["evidence"], responses=PROBLEMS)


router.get(
    "/{session_id}/manifest",
    name="download_manifest",
    response_class=Response,
    responses=ENVELOPE,
    dependencies=MANIFEST_READ,
)(get_manifest)
router.head("/{session_id}/manifest", response_class=Response, responses=ENVELOPE_HEAD)(head_manifest)


@router.get(
    "/{session_id}/history", response_class=Response, responses=of_stream(LINES), dependencies=HISTORY_READ
)
async def download_history(session_id: SessionId, request: Request, parts: Parts) -> Response:
    """Every event of the session's log, one a line, as it is stored."""
    await parts.log.existing(session_id)
    lines = parts.transfers.lines(caller_of(request).subject, parts.log.lines(session_id))
    return Pieces(await begun(lines), 200, {"Cache-Control": NO_STORE}, LINES)


@router.get(
    "/{session_id}/evidence",
    response_class=Response,
    responses=of_stream(ZIP, DISPOSITION),
    dependencies=EXPORTED,
)
async def download_evidence(session_id: SessionId, request: Request, parts: Parts) -> Response:
    """The evidence copy as a zip: unpack it and run `lucid verify` on the folder."""
    found = await load_sealed(parts.jet, parts.data, session_id)
    packed = await asyncio.to_thread(evidence_zip, found.evidence)
    body = await begun(parts.transfers.zipped(caller_of(request).subject, packed))
    return Pieces(body, 200, _zip_headers(session_id), ZIP)


@router.head(
    "/{session_id}/evidence",
    response_class=Response,
    responses={200: {"headers": {**CACHE, **DISPOSITION}}},
)
async def head_evidence(session_id: SessionId, parts: Parts) -> Response:
    """Whether there is an evidence copy. Its length is known only when it is made."""
    require_seal(await existing(parts.log, session_id))
    answer = Response(None, 200, _zip_headers(session_id), ZIP)
    del answer.headers["Content-Length"]
    return answer


def _zip_headers(session_id: str) -> dict[str, str]:
    return {"Cache-Control": NO_STORE, "Content-Disposition": f'attachment; filename="{session_id}.zip"'}


async def _place(request: Request) -> AsyncIterator[LiveEvents]:
    """The live streams, with a place for one more until its answer has ended."""
    streams: LiveEvents = request.app.state.live
    with streams.place(caller_of(request).subject):
        yield streams


@router.get("/{session_id}/events", response_class=Response, responses=of_stream(live.MEDIA_TYPE))
async def follow_events(
    session_id: SessionId,
    parts: Parts,
    streams: Annotated[LiveEvents, Depends(_place)],
    request: Request,
    last_event_id: LastEventId = None,
    follow: Follow = True,
) -> Response:
    """The session's live state as server-sent events: its log, and the steps of its chunks."""
    await parts.log.existing(session_id)
    until_s = caller_of(request).until_s
    events = streams.follow(session_id, last_event_id, until_s, only_present=not follow)
    return Pieces(events, 200, {"Cache-Control": NO_STORE}, live.MEDIA_TYPE)
