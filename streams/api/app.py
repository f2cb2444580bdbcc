"""Makes the application of one or several roles: routes, problem documents, bounds of bodies.

    recorder · pipeline · processor · storage · api        `lucid up` serves all five on one port

1. A role is a list of routers. Health and readiness belong to every role.
2. Nothing is decided here: routes call commands and queries.
"""

from collections.abc import Collection

from fastapi import APIRouter, FastAPI

from streams.api.bodies import BoundedBodies
from streams.api.live import LiveEvents
from streams.api.parts import ApiParts
from streams.api.problems import install
from streams.api.routes import chunks, evidence, pipelines, recordings, sessions, system

ROLES: dict[str, tuple[APIRouter, ...]] = {
    "recorder": (recordings.router,),
    "pipeline": (pipelines.router,),
    "processor": (),
    "storage": (),
    "api": (sessions.router, chunks.router, evidence.router),
}
"""The routers of each role."""


def make_app(parts: ApiParts, roles: Collection[str] = tuple(ROLES)) -> FastAPI:
    """The application of these roles."""
    app = FastAPI(
        title="Lucid Sessions",
        version=parts.version,
        description="Recordings of remote-desktop sessions as encrypted, tamper-evident evidence.",
    )
    app.state.parts = parts
    app.state.live = LiveEvents(parts.jet)
    for role in ROLES:
        if role in roles:
            for router in ROLES[role]:
                app.include_router(router)
    app.include_router(system.router)
    app.add_middleware(BoundedBodies)
    install(app)
    return app
