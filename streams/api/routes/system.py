"""Health of a service and of the parts that it depends on. It needs no token."""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request, Response

from schemas.api.service import Dependency, Health
from schemas.errors import NotFound
from streams.api.answers import OPEN_PROBLEMS, Answers, problem
from streams.api.dependencies import OK
from streams.api.metrics import Metrics
from streams.api.parts import parts_of
from streams.api.routes.sessions import PREFIX, Parts

TEXT: Answers = {
    200: {"content": {"text/plain": {}, "application/openmetrics-text": {}}},
    404: problem("Metrics are switched off (METRICS_ENABLED)."),
}
ASKS_OTHERS = "api"
"""The role that asks the others for their health; /health itself asks nobody's, so there is no chain."""
READY_S = 1.0
"""How old the states may be by which readiness is told."""

router = APIRouter(tags=["system"], responses=OPEN_PROBLEMS)
metrics_router = APIRouter(tags=["system"], responses=OPEN_PROBLEMS)
"""Also served alone, on a port of its own."""
of_sessions = APIRouter(prefix=PREFIX, tags=["sessions"], responses=OPEN_PROBLEMS)
"""Health and metrics again, where people look for those of session-api."""


@router.get("/health", response_model=Health)
@of_sessions.get("/health", response_model=Health)
async def health(request: Request, parts: Parts) -> Health:
    """That the process answers; the state of its dependencies is told beside it."""
    return await _health(request, parts.settings.health_interval_s)


@router.get("/ready", response_model=Health, responses={503: {"model": Health}})
async def ready(request: Request, parts: Parts, response: Response) -> Health:
    """Whether requests can be served now. session-api asks the /health of each service with a set URL."""
    with_url = [role for role in parts.others if parts.settings.services[role.upper()].url]
    services = with_url if ASKS_OTHERS not in parts.others else ()
    found = await _health(request, min(READY_S, parts.settings.health_interval_s), services)
    if found.status != "ok":
        response.status_code = 503
    return found


@metrics_router.get("/metrics", response_class=Response, responses=TEXT)
@of_sessions.get("/metrics", response_class=Response, responses=TEXT)
async def metrics(request: Request, parts: Parts) -> Response:
    """The measurements of all processes: the text format of Prometheus, or OpenMetrics if it is accepted."""
    if not parts.settings.metrics_enabled:
        raise NotFound("metrics are switched off here", code="metrics.off", hint="METRICS_ENABLED=true")
    found: Metrics = request.app.state.metrics
    text, media_type = await found.text(request.headers.get("accept", ""))
    return Response(text, media_type=media_type)


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> dict[str, Any]:
    """The OpenAPI document of the roles that are served here."""
    document: dict[str, Any] = request.app.openapi()
    return document


async def _health(request: Request, oldest_s: float, services: Collection[str] = ()) -> Health:
    parts, dependencies = parts_of(request), request.app.state.dependencies
    states: dict[str, Dependency] = await dependencies.states(oldest_s)
    if services:
        others: dict[str, Dependency] = await request.app.state.others.states(oldest_s, services)
        states |= {f"session-{role}": state for role, state in others.items()}
    return Health(
        status="ok" if {one.state for one in states.values()} <= {OK} else "degraded",
        service=parts.service,
        version=parts.version,
        timestamp=datetime.now(UTC),
        dependencies=states,
    )
