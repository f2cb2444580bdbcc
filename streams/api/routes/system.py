"""Health of a service and of the parts that it depends on. It needs no token."""

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request, Response

from schemas.api.responses import Health
from schemas.errors import LucidError
from streams.api.metrics import MEDIA_TYPE, Metrics
from streams.api.parts import ApiParts
from streams.api.routes.sessions import Parts
from streams.control.client import call

LOOK_S = 2.0

router = APIRouter(tags=["system"])


@router.get("/health", response_model=Health)
async def health(parts: Parts) -> Health:
    """That the process answers; the state of its dependencies is told beside it."""
    return await _health(parts)


@router.get("/ready", response_model=Health, responses={503: {"model": Health}})
async def ready(parts: Parts, response: Response) -> Health:
    """Whether requests can be served now."""
    found = await _health(parts)
    if found.status != "ok":
        response.status_code = 503
    return found


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """The counters of this process, in the text format of Prometheus."""
    found: Metrics = request.app.state.metrics
    return Response(found.text(), media_type=MEDIA_TYPE)


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> dict[str, Any]:
    """The OpenAPI document of the roles that are served here."""
    document: dict[str, Any] = request.app.openapi()
    return document


async def _health(parts: ApiParts) -> Health:
    checks: dict[str, Awaitable[object]] = {
        "nats": parts.jet.account(),
        "commands": call(parts.jet, "ping", {}, LOOK_S),
    }
    states = await asyncio.gather(*map(_state, checks.values()))
    found = dict(zip(checks, states, strict=True))
    return Health(
        status="ok" if set(states) == {"ok"} else "degraded",
        service=parts.service,
        version=parts.version,
        timestamp=datetime.now(UTC),
        dependencies=found,
    )


async def _state(check: Awaitable[object]) -> str:
    try:
        async with asyncio.timeout(LOOK_S):
            await check
    except TimeoutError:
        return "slow"
    except LucidError as error:
        return error.code
    return "ok"
