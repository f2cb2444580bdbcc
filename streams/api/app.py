"""Makes the application of one or several roles: routes, problem documents, bounds of bodies.

    recorder · pipeline · processor · storage · api        `lucid up` serves all five on one port

1. A role is a list of routers. Health and readiness belong to every role.
2. Nothing is decided here: routes call commands and queries.
"""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from streams.api.answers import with_problem, with_request_ids
from streams.api.auth import ADMITTED, Admission, allow_origins
from streams.api.bodies import BoundedBodies
from streams.api.dependencies import Dependencies
from streams.api.live import LiveEvents
from streams.api.measured import Measured
from streams.api.metrics import Metrics, measure_service
from streams.api.parts import ApiParts
from streams.api.problems import install
from streams.api.rate_limit import RateLimits
from streams.api.request_ids import RequestIds
from streams.api.routes import (
    audit,
    chunks,
    config,
    evidence,
    interventions,
    pipelines,
    processor,
    recordings,
    sessions,
    status,
    storage,
    system,
    trees,
    where,
)
from streams.api.traced import Traced
from streams.api.unread_bodies import UnreadBodies

ROLES: dict[str, tuple[APIRouter, ...]] = {
    "recorder": (status.router, status.compression, recordings.router, recordings.listing),
    "pipeline": (status.router, pipelines.router, config.router),
    "processor": (processor.router, trees.router),
    "storage": (storage.router, recordings.listing),
    "api": (
        *(sessions.router, interventions.router, chunks.router),
        *(where.router, evidence.router, audit.router),
    ),
}
"""The routers of each role."""


class Application(FastAPI):
    """The application; its document also holds the form of a problem, and the ids of requests."""

    def openapi(self) -> dict[str, Any]:
        return with_request_ids(with_problem(super().openapi()))


def make_app(parts: ApiParts, roles: Collection[str] = tuple(ROLES)) -> FastAPI:
    """The application of these roles, over the parts of one process."""
    app = routed(parts.version, roles)
    app.state.parts, app.state.began = parts, datetime.now(UTC)
    app.state.dependencies, app.state.others = Dependencies(parts.health), Dependencies(parts.others)
    served = dict.fromkeys(url for role, url in parts.urls.items() if role in roles)
    app.servers = [{"url": url} for url in served]
    app.state.live = LiveEvents(parts.jet)
    app.state.metrics = Metrics(parts.jet, parts.samples)
    measure_service(parts.meter, parts.service, parts.version, parts.chunks.pool)
    settings = parts.settings
    app.add_middleware(BoundedBodies)
    app.add_middleware(
        Admission, tokens=parts.tokens, limits=RateLimits(settings.rate_caller, settings.rate_address)
    )
    app.add_middleware(UnreadBodies)
    allow_origins(app, settings.cors_origins)  # the outermost: a browser asks first, without a token
    app.add_middleware(Traced, jet=parts.jet)
    app.add_middleware(Measured, meter=parts.meter)
    app.add_middleware(RequestIds)
    install(app)
    return app


def routed(version: str, roles: Collection[str] = tuple(ROLES)) -> FastAPI:
    """The routes alone: enough for their OpenAPI document."""
    app = Application(
        title="Lucid Sessions",
        version=version,
        description="Recordings of remote-desktop sessions as encrypted, tamper-evident evidence.",
        openapi_url=None,
        generate_unique_id_function=_operation_id,
    )
    if "api" in roles:
        app.include_router(system.of_sessions)  # before a session could be taken for one of these names
    included: list[APIRouter] = []
    for role in ROLES:
        for router in ROLES[role] if role in roles else ():
            if router not in included:  # two roles may share one
                included.append(router)
                app.include_router(router, dependencies=ADMITTED)
    app.include_router(system.router)
    app.include_router(system.metrics_router)
    return app


def metrics_alone(app: FastAPI) -> FastAPI:
    """An application with the metrics of another one, and nothing else."""
    alone = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    alone.state = app.state
    alone.include_router(system.metrics_router)
    alone.add_middleware(RequestIds)
    install(alone)
    return alone


def _operation_id(route: APIRoute) -> str:
    """A name that stays when a path changes, such as `sessions_create_session`."""
    return "_".join((*map(str, route.tags[:1]), route.name))
