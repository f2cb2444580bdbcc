"""The verb `lucid serve ROLE`: runs one role in this process until it is told to stop."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Annotated

import typer

from schemas.config.logs import logger
from schemas.errors import LucidError, Misuse
from schemas.ports import Jet
from schemas.subjects import METRICS_LEFT
from streams.cli import attach
from streams.cli.groups import group
from streams.cli.wait_start import connection
from streams.event_store.topology import check_payload, declare
from streams.roles.drivers import Installation, configure_logs, die_with, effective, own_host

Role = Callable[[Installation, Jet, asyncio.Event], Awaitable[None]]
Make = Callable[[Installation], Role]
Parent = Annotated[int, typer.Option("--parent", hidden=True, help="Die with this process.")]

serve = group()
log = logger("lucid.serve")


@serve.command()
def worker(
    group: Annotated[int, typer.Option(help="Which group of workers this one is.", min=0)] = 0,
    groups: Annotated[int, typer.Option(help="How many groups share the partitions.", min=1, max=16)] = 1,
    parent: Parent = 0,
) -> None:
    """The six stages."""
    from streams.roles.services import run_worker

    if group >= groups:
        raise Misuse(f"--group {group} is not below --groups {groups}", code="usage")
    name = f"worker-{group}" if groups > 1 else ""
    _serve("worker", lambda _: partial(run_worker, group=group, groups=groups), parent, name)


@serve.command()
def conductor(parent: Parent = 0) -> None:
    """Lifecycle, sealing, commands."""
    from streams.roles.services import run_conductor

    _serve("conductor", lambda _: run_conductor, parent)


HttpPort = Annotated[
    int | None, typer.Option("--port", min=0, max=65_535, help="Its port instead of the one that is set.")
]
HttpSocket = Annotated[int, typer.Option("--fd", hidden=True, help="Its socket, held by the supervisor.")]
HttpHost = Annotated[str, typer.Option("--host", help="Its address instead of BIND_ADDRESS.")]


def _http(role: str, text: str) -> None:
    """Declare the verb of one HTTP role."""

    @serve.command(role, help=text)
    def run(host: HttpHost = "", port: HttpPort = None, parent: Parent = 0, fd: HttpSocket = 0) -> None:
        from streams.api.app import ROLES
        from streams.api.server import bound, inherited
        from streams.roles.http_service import run_http
        from streams.roles.pipeline_service import run_pipeline

        def make(here: Installation) -> Role:
            settings = effective(here.settings)
            own = settings.services["API" if role == "http" else role.upper()].port
            place = host or settings.bind_address, own if port is None else port
            listening = inherited(fd) if fd else bound(*place)
            roles = tuple(ROLES) if role == "http" else (role,)
            if not parent:
                row = "API" if role == "http" else role.upper()
                url = settings.url_of(row, listening.getsockname()[1])
                log.info("serving", service=f"session-{row.lower()}", url=url)
            if role == "pipeline":
                return partial(run_pipeline, listening=listening)
            return partial(run_http, listening=listening, roles=roles)

        _serve(role, make, parent)


_http("recorder", "session-recorder over HTTP.")
_http("pipeline", "session-pipeline: stages, lifecycle, and its routes.")
_http("processor", "session-processor over HTTP.")
_http("storage", "session-storage over HTTP.")
_http("api", "session-api over HTTP.")
_http("http", "All five over HTTP, on one port.")


def _serve(name: str, make: Make, parent: int, process: str = "") -> None:
    """process: its name among measurements; empty: as its role."""
    if parent:
        die_with(parent)
    here = Installation.here(role=name)
    here.process = process or name
    if not parent:  # others of this role may run elsewhere
        here.process += f"@{own_host()}"
    configure_logs(here.settings, here.process)
    if not parent:
        here.check_start()
    role, stop = make(here), asyncio.Event()

    async def work() -> None:
        async with connection(here, f"lucid-{name}", serving=False) as jet:
            check_payload(jet)
            if not parent:  # our own supervisor has declared them, with limits that fit its disk
                await here.logged_keys(jet).check()  # before streams are made: others take them for a log
                await declare(jet, here.settings.nats_storage_bytes, shards=here.settings.shards)
            async with here.measured(jet):
                await role(here, jet, stop)
            await asyncio.sleep(0)  # behind its last answer
            # A process that is killed or fails says nothing: it stays on the page, as one that is down.
            with suppress(LucidError):
                await jet.tell(METRICS_LEFT, here.meter.head())

    attach.run(work(), stop.set)
