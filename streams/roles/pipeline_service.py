"""Runs session-pipeline alone: the conductor, one worker for all partitions, and the routes, in one process.

More workers run beside a conductor: `lucid serve conductor`, and `lucid serve worker` for each group.
"""

import asyncio
import socket

from schemas.ports import Jet
from streams.roles.drivers import Installation
from streams.roles.http_service import run_http
from streams.roles.services import run_conductor, run_worker

ROLE = "pipeline"


async def run_pipeline(here: Installation, jet: Jet, stop: asyncio.Event, listening: socket.socket) -> None:
    """Run until `stop` is set. If one part ends with an error, the others are stopped and it is raised."""

    async def part(running: "asyncio.Future[None]") -> None:
        try:
            await running
        finally:
            stop.set()

    parts = (
        run_conductor(here, jet, stop),
        run_worker(Installation(here.settings, here.meter), jet, stop),
        run_http(Installation(here.settings, here.meter), jet, stop, listening, (ROLE,)),
    )
    ended = await asyncio.gather(*(part(asyncio.ensure_future(one)) for one in parts), return_exceptions=True)
    for error in ended:
        if isinstance(error, BaseException):
            raise error
