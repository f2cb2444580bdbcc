"""The routes of session-processor to single chunks and to batches of them; trees.py has the others."""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from pydantic_core import from_json

from schemas.api.chunks import (
    BatchMade,
    BatchProblem,
    BatchResult,
    ChunkBatch,
    ChunkMade,
    ChunkParameters,
    ChunkRequest,
)
from schemas.api.problem import Problem, problem_of
from schemas.config.logs import logger
from schemas.errors import LucidError, Misuse
from schemas.format.chunk_header import SUITE_NAMES, Codec, CodecName
from streams.api.answers import CACHE, PROBLEMS, Answers, header
from streams.api.arriving import arriving
from streams.api.auth import caller_of
from streams.api.conditions import NO_STORE, OCTETS
from streams.api.parts import ApiParts
from streams.api.routes.sessions import Parts
from streams.api.transfers import Pieces, in_memory
from streams.evidence.chunk_processor import Made, of_base64
from streams.pipeline.chunk_pool import HeldBytes

JSON = "application/json"
MORE_THAN_DATA = 1 << 16
"""Bytes of a JSON chunk besides its data."""
BATCH_BYTES = 64 << 20
AT_ONCE = 2
"""Chunks of one batch that are under way, for each worker: a batch leaves the queue to others."""

log = logger("lucid.api")
router = APIRouter(tags=["processor"], responses=PROBLEMS)

Key = Annotated[
    str | None,
    Header(alias="X-Chunk-Key", max_length=100, description="32 bytes as base64, for a raw body."),
]
CHUNK_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            OCTETS: {"schema": {"type": "string", "format": "binary"}},
            JSON: {"schema": ChunkRequest.model_json_schema()},
        },
    }
}
BATCH_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {JSON: {"schema": ChunkBatch.model_json_schema()}},
    }
}
SEALED = {
    "ETag": "Of sealed bytes: their digest.",
    "X-Chunk-Leaf": "Of sealed bytes: the leaf in the tree, hex.",
    "X-Chunk-Entry": "Of sealed bytes: their entry (format.md §7), hex.",
    "X-Chunk-Compression": "Of sealed bytes: the codec.",
    "X-Plain-Hash": "Of sealed bytes: the digest of the plain ones, hex.",
}
CHUNK_ANSWERS: Answers = {
    200: {
        "model": ChunkMade,
        "description": "The chunk is processed. With `Accept: application/octet-stream`: its sealed bytes.",
        "content": {OCTETS: {}},
        "headers": {**CACHE, **{name: header(text, always=False) for name, text in SEALED.items()}},
    }
}
BATCH_ANSWERS: Answers = {200: {"model": BatchMade, "headers": CACHE}}


async def _holding(parts: Parts) -> AsyncIterator[HeldBytes]:
    """Count the bytes of the body until the answer is sent: it holds about as many."""
    with parts.chunks.pool.holding() as held:
        yield held


Held = Annotated[HeldBytes, Depends(_holding)]


@router.post("/chunks/process", openapi_extra=CHUNK_BODY, responses=CHUNK_ANSWERS)
async def process_chunk(
    request: Request,
    parts: Parts,
    held: Held,
    asked: Annotated[ChunkParameters, Query()],
    key: Key = None,
) -> Response:
    """Compress and seal one chunk. Its bytes are the body itself, or `data` of a JSON body."""
    processor, as_bytes = parts.chunks.processor, OCTETS in request.headers.get("accept", "")
    most = processor.max_chunk_bytes
    if request.headers.get("content-type", "").partition(";")[0].strip() == JSON:
        body = await _body(request, held, -(-most // 3) * 4 + MORE_THAN_DATA)
        given = _chunk_request(await asyncio.to_thread(_json, body))
        key = given.key.get_secret_value() if given.key else None
        made = await processor.process(_caller(request), lambda: of_base64(given.data), given, key)
        asked = given
    else:
        plain = await _body(request, held, most)
        made = await processor.process(_caller(request), lambda: plain, asked, key)
    if as_bytes:
        return _sealed(made)
    return _json_answer(_shown(made, with_bytes=asked.sealed).model_dump_json())


@router.post("/chunks/batch", openapi_extra=BATCH_BODY, responses=BATCH_ANSWERS, response_model=None)
async def process_batch(request: Request, parts: Parts, held: Held) -> Response:
    """Process many chunks. A chunk that is wrong, late or refused is a problem and disturbs no other."""
    body = await _body(request, held, BATCH_BYTES)
    given = await asyncio.to_thread(_json, body)
    del body
    try:
        chunks = ChunkBatch.model_validate(given).chunks
    except ValidationError as error:
        raise _invalid(error) from None
    answers: dict[int, ChunkMade | Problem] = {}
    waiting = iter(enumerate(chunks))

    async def work() -> None:
        for position, one in waiting:
            answers[position] = await _of_batch(parts, _caller(request), one)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE * parts.chunks.pool.limits.workers):
            tasks.create_task(work())
    made = BatchMade(
        results=[
            BatchResult(position=position, **answers[position].model_dump())
            for position in range(len(chunks))
            if isinstance(answers[position], ChunkMade)
        ],
        problems=[
            BatchProblem(position=position, problem=problem)
            for position in range(len(chunks))
            if isinstance(problem := answers[position], Problem)
        ],
    )
    text = await asyncio.to_thread(made.model_dump_json)
    return _json_answer(text)


async def _of_batch(parts: ApiParts, caller: str, one: object) -> ChunkMade | Problem:
    """The answer to one chunk of a batch. Raises nothing: the others go on."""
    try:
        given = _chunk_request(one)
        key = given.key.get_secret_value() if given.key else None
        made = await parts.chunks.processor.process(caller, lambda: of_base64(given.data), given, key)
        return _shown(made, with_bytes=given.sealed)
    except RequestValidationError as error:
        return problem_of(Misuse(_first(error), code="request.invalid"), 422)
    except LucidError as error:
        return problem_of(error)
    except Exception as error:
        log.exception("chunk_failed", exc_info=error)
        return problem_of(LucidError("it failed inside; the log says why", code="api.bug"))


def _caller(request: Request) -> str:
    """The name under which callers take turns in the pool."""
    return caller_of(request).subject


async def _body(request: Request, held: HeldBytes, most: int) -> bytearray:
    """The whole body, counted while it arrives. Raises TooLarge, Busy (queue.full)."""
    body = bytearray()
    async for piece in arriving(request, most):
        held.add(len(piece))
        body += piece
    return body


def _json(body: bytearray) -> Any:
    """Raises Misuse (request.json)."""
    try:
        return from_json(bytes(body))
    except ValueError as error:
        raise Misuse(f"the body is not JSON: {str(error)[:200]}", code="request.json") from None


def _chunk_request(given: object) -> ChunkRequest:
    try:
        return ChunkRequest.model_validate(given)
    except ValidationError as error:
        raise _invalid(error) from None


def _invalid(error: ValidationError) -> RequestValidationError:
    """Without the input: it may hold a key."""
    found = error.errors(include_input=False, include_url=False, include_context=False)
    return RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in found])


def _first(error: RequestValidationError) -> str:
    one = error.errors()[0]
    return f"{'.'.join(map(str, one['loc']))}: {one['msg']}"


def _shown(made: Made, *, with_bytes: bool) -> ChunkMade:
    chunk, entry = made.chunk, made.chunk.entry
    return ChunkMade(
        session_id=made.session_id or None,
        uid=made.uid.hex(),
        index=entry.index,
        track=entry.track,
        part=entry.part,
        offset=entry.offset,
        compression=_codec(chunk.codec),
        build=chunk.build,
        encryption=SUITE_NAMES[made.suite],
        bytes=entry.plain,
        payload_bytes=chunk.payload,
        stored_bytes=entry.sealed,
        compression_ratio=round(entry.plain / entry.sealed, 4),
        plain_hash=chunk.plain_digest.hex(),
        hash=entry.digest.hex(),
        entry=entry.pack().hex(),
        leaf=chunk.leaf.hex(),
        key_id=made.key_id.hex(),
        key=base64.b64encode(made.new_key).decode() if made.new_key else None,
        sealed=base64.b64encode(chunk.sealed).decode() if with_bytes else None,
        location=f"/chunks/{made.session_id}/{entry.index}" if made.is_stored else None,
    )


def _sealed(made: Made) -> Response:
    """The sealed bytes as the body. Raises Misuse (chunk.key): a key that was made has no place in it."""
    if made.new_key:
        raise Misuse(
            "an answer of sealed bytes has no place for a new key",
            code="chunk.key",
            hint="send 32 bytes as base64 in X-Chunk-Key, or ask for application/json",
        )
    entry = made.chunk.entry
    headers = {
        "Cache-Control": NO_STORE,
        "ETag": f'"{entry.digest.hex()}"',
        "X-Chunk-Leaf": made.chunk.leaf.hex(),
        "X-Chunk-Entry": entry.pack().hex(),
        "X-Chunk-Compression": _codec(made.chunk.codec),
        "X-Plain-Hash": made.chunk.plain_digest.hex(),
    }
    return _answer(bytes(made.chunk.sealed), OCTETS, headers)


def _json_answer(text: str) -> Response:
    return _answer(text.encode(), JSON, {"Cache-Control": NO_STORE})


def _answer(body: bytes, media_type: str, headers: dict[str, str]) -> Response:
    """A caller that does not take it is cut off: its bytes are held until then."""
    return Pieces(in_memory(body), 200, {**headers, "Content-Length": str(len(body))}, media_type)


def _codec(codec: Codec) -> CodecName:
    name: CodecName = codec.name.lower()  # type: ignore[assignment]  # the names of the enum are these
    return name
