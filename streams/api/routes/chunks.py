"""The routes to the chunks of a session and to its recording as a whole."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from schemas.api.responses import ChunkPage, ChunkShown
from streams.api.answers import DISPOSITION, PROBLEMS, SOME_ETAG, of_bytes, of_head
from streams.api.auth import caller_of
from streams.api.conditions import OCTETS, Conditions, OfGet, OfHead
from streams.api.downloads import Downloads
from streams.api.looked import CHUNK_DOWNLOADED, DOWNLOADED, Form, SessionId
from streams.api.parts import ApiParts
from streams.api.routes.sessions import PREFIX, Parts
from streams.api.shapes import chunk_shown
from streams.evidence.session_trees import existing
from streams.evidence.stored_chunks import StoredChunks

ChunkId = Annotated[str, Path(pattern=r"^[0-9]{1,10}$", description="Ten digits, or the sequence.")]
After = Annotated[str, Query(pattern=r"^[0-9]{0,10}$", description="Only chunks after this one.")]
Limit = Annotated[int, Query(ge=1, le=1000)]

router = APIRouter(prefix=PREFIX, tags=["chunks"], responses=PROBLEMS)


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
    responses=of_bytes(OCTETS, {}),
    dependencies=CHUNK_DOWNLOADED,
)
async def download_chunk(
    session_id: SessionId,
    chunk_id: ChunkId,
    request: Request,
    parts: Parts,
    asked: OfGet,
    form: Form = "plain",
) -> Response:
    """The bytes of one chunk: as they were recorded, or sealed as they are stored."""
    return await _of_chunk(await _downloads(session_id, request, parts), int(chunk_id), form, asked)


@router.head("/{session_id}/chunks/{chunk_id}/download", response_class=Response, responses=of_head({}))
async def head_chunk(
    session_id: SessionId,
    chunk_id: ChunkId,
    request: Request,
    parts: Parts,
    asked: OfHead,
    form: Form = "plain",
) -> Response:
    """Length and ETag of one chunk."""
    return await _of_chunk(await _downloads(session_id, request, parts), int(chunk_id), form, asked)


@router.get(
    "/{session_id}/recording",
    response_class=Response,
    responses=of_bytes(OCTETS, DISPOSITION, SOME_ETAG),
    dependencies=DOWNLOADED,
)
async def download_recording(session_id: SessionId, request: Request, parts: Parts, asked: OfGet) -> Response:
    """The recording as it was made: the plain bytes of all chunks so far, one after the other."""
    name = f'attachment; filename="{session_id}.bin"'
    sending = await _downloads(session_id, request, parts)
    return await sending.recording(asked, {"Content-Disposition": name})


@router.head("/{session_id}/recording", response_class=Response, responses=of_head(DISPOSITION, SOME_ETAG))
async def head_recording(session_id: SessionId, request: Request, parts: Parts, asked: OfHead) -> Response:
    """Length of the recording so far, and its ETag once it is sealed."""
    return await download_recording(session_id, request, parts, asked)


async def _of_chunk(sending: Downloads, index: int, form: Form, asked: Conditions) -> Response:
    chunk = sending.stored.present(index)
    return await (sending.sealed if form == "sealed" else sending.plain)(chunk, asked)


async def _downloads(session_id: str, request: Request, parts: ApiParts) -> Downloads:
    stored = await _stored(parts, session_id)
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
