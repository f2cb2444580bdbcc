"""The verb `lucid up`: runs everything on this machine until it is told to stop."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from schemas.errors import Misuse
from schemas.subjects import PARTITIONS
from streams.cli import attach, output
from streams.cli.output import JsonFlag
from streams.pipeline.stages import STAGES
from streams.roles.drivers import Installation, configure_logs, server_version
from streams.roles.local_system import SUPERVISOR, System, running


def up(
    jaeger: Annotated[bool, typer.Option("--jaeger", help="Run a Jaeger, too, and trace all work.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Run everything on this machine until Ctrl-C: NATS server, six stages, lifecycle, API."""
    here = Installation.here(role="http")
    settings = here.settings
    if settings.nats_url:
        raise Misuse(
            "NATS_URL is set: `up` runs a NATS server of its own",
            code="config.nats_url",
            hint="unset it, or run `lucid serve worker` and `lucid serve conductor` against that NATS",
        )
    configure_logs(settings, SUPERVISOR)
    here.check_start(owner=True)
    stop, token = asyncio.Event(), str(here.issuer.admin_file or "")

    async def until_stopped() -> None:
        async with running(here, quiet=False, jaeger=jaeger) as system:
            if as_json:
                run = {"data": str(system.data.path), "api_url": system.api_url, "token_file": token}
                run |= {"jaeger_url": system.jaeger.ui_url} if system.jaeger else {}
                output.emit({**run, "urls": system.urls, "status": "running"})
            else:
                output.say(headline(system))
                output.say(f"API on {system.api_url}")
                for role, url in system.urls.items():
                    output.say(f"session-{role} for others on {url}")
                if system.jaeger is not None:
                    output.say(f"traces on {system.jaeger.ui_url}")
                if token:
                    output.say(f"operator's token in {output.short_path(Path(token))}")
                output.note("stop with Ctrl-C")
            await stopped(system, stop)

    attach.run(until_stopped(), stop.set)


async def stopped(system: System, stop: asyncio.Event) -> None:
    """Return on the signal to stop. Raises the error that ends the system by itself."""
    asked = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({asked, system.watching}, return_when=asyncio.FIRST_COMPLETED)
        if system.watching.done():
            system.watching.result()
    finally:
        asked.cancel()


def headline(system: System) -> str:
    """nats-server 2.15.1 · 6 stages · 16 partitions · data in ~/.local/share/lucid"""
    parts = f"nats-server {server_version()} · {len(STAGES)} stages · {PARTITIONS} partitions"
    data = f"data in {output.short_path(system.data.path)}"
    together = f"{parts} · {data}"
    return together if len(together) <= output.COLUMNS else f"{parts}\n{data}"
