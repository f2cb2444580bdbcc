"""Begins the traces of this process, if the environment says where spans go to.

The SDK of OpenTelemetry is imported only then: that takes 0.2 s, and most commands of `lucid` trace nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from pathlib import Path

from infra.telemetry.otel_environment import is_on
from infra.telemetry.otel_variables import wrong_variables
from schemas.config.logs import logger
from schemas.errors import raise_together
from schemas.ports.broker import Jet
from schemas.ports.files import DataDir
from schemas.ports.telemetry import NO_TRACES, Tracer

PACKAGE, FOLDER = "lucid-sessions", "traces"

log = logger("lucid.traces")


@asynccontextmanager
async def traced(jet: Jet, service: str, data: DataDir, server: str = "") -> AsyncIterator[None]:
    """Trace the work over this connection until the block ends.

    service: the name of this process in traces. server: the URL of the installation's own Jaeger; empty: that
    of the system that runs on this data directory. If it has none, the environment names a server.
    """
    server = server or (data.read_run() or {}).get("otlp_url", "")
    jet.tracer = await asyncio.to_thread(_begin, service, data.where("temp"), server)
    try:
        yield
    finally:
        await asyncio.to_thread(jet.tracer.close)


@contextmanager
def traced_apart(service: str, data: DataDir) -> Iterator[Tracer]:
    """Trace work without a connection until the block ends."""
    tracer = _begin(service, data.where("temp"), (data.read_run() or {}).get("otlp_url", ""))
    try:
        yield tracer
    finally:
        tracer.close()


def _begin(service: str, temp: Path, server: str) -> Tracer:
    """Raises Misuse, Misuses (config.otel). No other failure to begin stops anything."""
    if not is_on(server):
        return NO_TRACES
    raise_together(tuple(wrong_variables(server)))
    try:
        from infra.telemetry.tracing import tracer

        return tracer(service, version(PACKAGE), temp / FOLDER, server)
    except Exception as error:
        log.warning("traces_off", error=error)
        return NO_TRACES
