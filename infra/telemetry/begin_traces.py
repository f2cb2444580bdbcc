"""Begins the traces of this process, if the environment says where spans go to.

The SDK of OpenTelemetry is imported only then: that takes 0.2 s, and most commands of `lucid` trace nothing.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from infra.telemetry.otel_environment import is_on
from schemas.config.logs import logger
from schemas.ports.broker import Jet
from schemas.ports.telemetry import NO_TRACES, Tracer

PACKAGE, FOLDER = "lucid-sessions", "traces"

log = logger("lucid.traces")


@asynccontextmanager
async def traced(jet: Jet, service: str, temp: Path) -> AsyncIterator[None]:
    """Trace the work over this connection until the block ends.

    service: the name of this process in traces. temp: the folder of temporary files.
    """
    jet.tracer = await asyncio.to_thread(_begin, service, temp)
    try:
        yield
    finally:
        await asyncio.to_thread(jet.tracer.close)


def _begin(service: str, temp: Path) -> Tracer:
    """A variable of OpenTelemetry with a wrong value turns traces off, and stops nothing."""
    if not is_on():
        return NO_TRACES
    try:
        from infra.telemetry.tracing import tracer

        return tracer(service, version(PACKAGE), temp / FOLDER)
    except Exception as error:
        log.warning("traces_off", error=error)
        return NO_TRACES
