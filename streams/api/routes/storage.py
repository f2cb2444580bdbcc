"""The routes of session-storage: a sealed chunk is put once and read; nothing replaces or removes it.

DELETE and every other method are answered 405: only the destruction of its session removes a chunk.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from schemas.api.chunks import StoredPut
from schemas.format.chunk_header import MAX_SEALED
from streams.api.acted import STORED
from streams.api.answers import ETAG, LOCATION, PROBLEMS, of_bytes, of_head
from streams.api.arriving import arriving
from streams.api.blob_answer import answer
from streams.api.conditions import OCTETS, OfGet, OfHead
from streams.api.looked import SEALED_READ, SessionId
from streams.api.routes.sessions import Parts
from streams.evidence.session_trees import existing

Index = Annotated[int, Path(ge=0, lt=10**10, description="Index of the chunk in its session.")]
PUT_BODY = {
    "requestBody": {"required": True, "content": {OCTETS: {"schema": {"type": "string", "format": "binary"}}}}
}
PUT_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": StoredPut, "description": "These bytes were stored before.", "headers": ETAG},
    201: {"model": StoredPut, "description": "Stored.", "headers": {**ETAG, **LOCATION}},
}

router = APIRouter(prefix="/chunks", tags=["storage"], responses=PROBLEMS)


@router.put("/{session_id}/{index:int}", openapi_extra=PUT_BODY, responses=PUT_ANSWERS, dependencies=STORED)
async def put_chunk(
    session_id: SessionId,
    index: Index,
    request: Request,
    response: Response,
    parts: Parts,
) -> StoredPut:
    """Store a sealed chunk that the session's log knows. The same bytes again: 200. Other bytes: 409."""
    put = await parts.chunks.store.put(session_id, index, arriving(request, MAX_SEALED))
    created, where = put.outcome == "created", f"/chunks/{session_id}/{index}"
    response.status_code = 201 if created else 200
    response.headers["ETag"] = etag(put.digest)
    if created:
        response.headers["Location"] = where
    return StoredPut(
        session_id=session_id, index=index, created=created, hash=put.digest.hex(), location=where
    )


@router.get(
    "/{session_id}/{index:int}",
    response_class=Response,
    responses=of_bytes(OCTETS, {}),
    dependencies=SEALED_READ,
)
async def get_chunk(session_id: SessionId, index: Index, parts: Parts, asked: OfGet) -> Response:
    """The sealed chunk as it lies in the store. ETag: its digest."""
    session = await existing(parts.log, session_id)
    found = await parts.chunks.store.find(session, index)
    return answer(found.blob, etag(found.digest), asked)


@router.head("/{session_id}/{index:int}", response_class=Response, responses=of_head({}))
async def head_chunk(session_id: SessionId, index: Index, parts: Parts, asked: OfHead) -> Response:
    """Length and ETag of a sealed chunk."""
    return await get_chunk(session_id, index, parts, asked)


def etag(digest: bytes) -> str:
    return f'"{digest.hex()}"'
