"""Reads from a running system which traces its chunks belong to."""

import asyncio

from schemas import subjects
from schemas.telemetry.trace_context import TraceContext
from streams.roles.drivers import connected
from tests.support.program.installation import Installation


def traces_of(system: Installation, session: str, step: str) -> list[TraceContext]:
    """The contexts that the events of one step name."""

    async def read() -> list[TraceContext | None]:
        async with connected(system.nats_url, "test") as jet:
            found = jet.read_all(subjects.CHUNKS, subjects.chunk(step, session))
            headers = [message.headers async for message in found]
        return [TraceContext.parse(one["traceparent"]) for one in headers if "traceparent" in one]

    contexts = asyncio.run(read())
    assert None not in contexts
    return [one for one in contexts if one is not None]
