"""The routes of session-storage: a sealed chunk is put once and read; nothing replaces or removes it.

DELETE and every other method are answered 405: only the destruction of its session removes a chunk.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from schemas.api.chunks import StoredPut
from schemas.format.chunk_header import MAX_SEALED
from streams.api.acted import STORED
from streams.api.arriving import arriving
from streams.api.blob_answer import answer
from streams.api.downloads import OCTETS
from streams.api.looked import SEALED_READ, SessionId
from streams.api.problems import RESPONSES
from streams.api.routes.sessions import Parts
from streams.evidence.session_trees import existing

Index = Annotated[int, Path(ge=0, lt=10**10, description="Index of the chunk in its session.")]
BYTES: dict[int | str, dict[str, Any]] = {
    200: {"content": {OCTETS: {}}, "description": "The sealed chunk. ETag: its digest."},
    206: {"content": {OCTETS: {}}, "description": "A range of it."},
    304: {"description": "The caller has these bytes already."},
}
PUT_BODY = {
    "requestBody": {"required": True, "content": {OCTETS: {"schema": {"type": "string", "format": "binary"}}}}
}
PUT_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": StoredPut, "description": "These bytes were stored before."},
    201: {"model": StoredPut, "description": "Stored."},
}

router = APIRouter(prefix="/chunks", tags=["storage"], responses=RESPONSES)


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


@router.head("/{session_id}/{index:int}", name="head_chunk", response_class=Response, responses=BYTES)
@router.get("/{session_id}/{index:int}", response_class=Response, responses=BYTES, dependencies=SEALED_READ)
async def get_chunk(
    session_id: SessionId,
    index: Index,
    request: Request,
    parts: Parts,
) -> Response:
    """The sealed chunk as it lies in the store. Conditions: If-None-Match, Range, If-Range."""
    session = await existing(parts.log, session_id)
    found = await parts.chunks.store.find(session, index)
    return answer(found.blob, etag(found.digest), request.headers)


def etag(digest: bytes) -> str:
    return f'"{digest.hex()}"'
