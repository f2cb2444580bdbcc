"""Owns `lucid serve ROLE`: one role in this process, until it is told to stop."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Annotated

import typer

from infra.children import die_with
from infra.datadir import DataDir
from infra.jetstream import Jet, connect
from infra.settings import data_dir, load_settings
from schemas.errors import Misuse
from schemas.settings import Settings
from streams.cli import attach, output
from streams.topology import declare

Role = Callable[[Settings, Jet, DataDir, asyncio.Event], Awaitable[None]]
Parent = Annotated[int, typer.Option("--parent", hidden=True, help="Die with this process.")]

serve = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@serve.command()
def worker(
    group: Annotated[int, typer.Option(help="Which group of workers this one is.", min=0)] = 0,
    groups: Annotated[int, typer.Option(help="How many groups share the partitions.", min=1, max=16)] = 1,
    parent: Parent = 0,
) -> None:
    """The six stages."""
    from streams.wiring import run_worker

    if group >= groups:
        raise Misuse(f"--group {group} is not below --groups {groups}", code="usage")
    _serve(
        "worker",
        lambda settings, jet, data, stop: run_worker(settings, jet, data, stop, group, groups),
        parent,
    )


@serve.command()
def conductor(parent: Parent = 0) -> None:
    """Lifecycle, sealing, commands."""
    from streams.wiring import run_conductor

    _serve("conductor", run_conductor, parent)


def _serve(name: str, role: Role, parent: int) -> None:
    if parent:
        die_with(parent)
    settings = load_settings()
    logging.basicConfig(level=settings.log_level, format=output.LOG_FORMAT)
    stop = asyncio.Event()

    async def work() -> None:
        data = data_dir(settings)
        jet = await connect(await attach.server_url(settings, data), name=f"lucid-{name}")
        try:
            if not parent:  # our own supervisor has declared them, with limits that fit its disk
                await declare(jet, settings.nats_storage_bytes)
            await role(settings, jet, data, stop)
        finally:
            await jet.close()

    attach.run(work(), stop.set)
