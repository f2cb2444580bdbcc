"""The routes to the chunks of a session and to its recording as a whole."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response

from schemas.api.responses import ChunkPage, ChunkShown
from streams.api import downloads
from streams.api.auth import caller_of
from streams.api.downloads import Downloads
from streams.api.looked import CHUNK_DOWNLOADED, DOWNLOADED, Form, SessionId
from streams.api.parts import ApiParts
from streams.api.problems import RESPONSES
from streams.api.routes.sessions import PREFIX, Parts
from streams.api.shapes import chunk_shown
from streams.evidence.session_trees import existing
from streams.evidence.stored_chunks import StoredChunks

ChunkId = Annotated[str, Path(pattern=r"^[0-9]{1,10}$", description="Ten digits, or the sequence.")]
RangeHeader = Annotated[str | None, Header(alias="Range", max_length=100)]
After = Annotated[str, Query(pattern=r"^[0-9]{0,10}$", description="Only chunks after this one.")]
Limit = Annotated[int, Query(ge=1, le=1000)]
OCTETS: dict[int | str, dict[str, Any]] = {
    200: {"content": {downloads.OCTETS: {}}},
    206: {"content": {downloads.OCTETS: {}}},
}

router = APIRouter(prefix=PREFIX, tags=["chunks"], responses=RESPONSES)


@router.get("/{session_id}/chunks", response_model=ChunkPage)
async def list_chunks(
    session_id: SessionId, parts: Parts, after: After = "", limit: Limit = 100
) -> ChunkPage:
    """The stored chunks by sequence, also while the session is recorded."""
    return await chunk_page(parts, session_id, after, limit)


@router.get("/{session_id}/chunks/{chunk_id}", response_model=ChunkShown)
async def show_chunk(session_id: SessionId, chunk_id: ChunkId, parts: Parts) -> ChunkShown:
    """One stored chunk."""
    stored = await _stored(parts, session_id)
    return chunk_shown(stored.session, stored.one(int(chunk_id)))


@router.get(
    "/{session_id}/chunks/{chunk_id}/download",
    response_class=Response,
    responses=OCTETS,
    dependencies=CHUNK_DOWNLOADED,
)
async def download_chunk(
    session_id: SessionId,
    chunk_id: ChunkId,
    request: Request,
    parts: Parts,
    form: Form = "plain",
    range_header: RangeHeader = None,
) -> Response:
    """The bytes of one chunk: as they were recorded, or sealed as they are stored."""
    stored = await _stored(parts, session_id)
    chunk = stored.one(int(chunk_id))
    headers = {"ETag": f'"{chunk.entry.digest.hex()}{"" if form == "sealed" else "-plain"}"'}
    sending = _downloads(request, parts, stored)
    if form == "sealed":
        return await sending.sealed(chunk, range_header, headers)
    return await sending.plain(chunk, range_header, headers)


@router.get("/{session_id}/recording", response_class=Response, responses=OCTETS, dependencies=DOWNLOADED)
async def download_recording(
    session_id: SessionId, request: Request, parts: Parts, range_header: RangeHeader = None
) -> Response:
    """The recording as it was made: the plain bytes of all chunks so far, one after the other."""
    stored = await _stored(parts, session_id)
    name = f'attachment; filename="{session_id}.bin"'
    sending = _downloads(request, parts, stored)
    return await sending.recording(range_header, {"Content-Disposition": name})


def _downloads(request: Request, parts: ApiParts, stored: StoredChunks) -> Downloads:
    return Downloads(parts.transfers, parts.keys, stored, caller_of(request).subject)


async def chunk_page(parts: ApiParts, session_id: str, after: str, limit: int) -> ChunkPage:
    """A page of the stored chunks of a session."""
    stored = await _stored(parts, session_id)
    first = int(after) + 1 if after else 0
    later = stored.since(first)
    page = [chunk_shown(stored.session, chunk) for chunk in later[:limit]]
    return ChunkPage(chunks=page, next=page[-1].id if len(later) > limit else None)


async def _stored(parts: ApiParts, session_id: str) -> StoredChunks:
    """Raises NotFound (session.absent), RefusedByState (evidence.destroyed)."""
    return await parts.lists.of(await existing(parts.log, session_id))
