"""The verb `lucid projections`: shows the read models, and makes them anew from the log."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from handlers.crypto.blind_index import BlindIndex
from schemas import subjects
from schemas.ports import Jet
from streams.cli import attach, output
from streams.cli.groups import group
from streams.cli.live import LiveLines
from streams.cli.output import JsonFlag
from streams.keys.keystore import KeyStore
from streams.projections.projector import Documents
from streams.projections.rebuild import Progress
from streams.projections.rebuild import rebuild as rebuild_all
from streams.roles.drivers import Installation

REDRAWN_S = 0.2
NAME = "lucid-rebuild"
"""Of a rebuild, in traces."""

projections = group()


@projections.callback()
def _group() -> None:
    """The read models: lists, filters and sums are answered from them. The log can make them again."""


@projections.command("show")
def show(as_json: JsonFlag = False) -> None:
    """Show where the read models are, and how far behind the log."""
    shown = attach.run(_shown(Installation.here()))
    sessions = output.count_of(shown["documents"], "session")
    behind = output.count_of(shown["behind"], "event")
    line = f"{shown['store']} · {sessions} · {behind} behind · generation {shown['generation']}"
    output.print_result(shown, [line], as_json)


@projections.command(short_help="Make the read models anew from the log.")
def rebuild(as_json: JsonFlag = False) -> None:
    """Make the read models anew from the log. The old ones answer until the new ones are complete."""
    lines = LiveLines(REDRAWN_S)
    try:
        done = attach.run(_rebuilt(Installation.here(), lambda progress: lines.draw([_line(progress)])))
    finally:
        lines.clear()
    result = {**done._asdict(), "rate": round(done.rate)}
    output.print_result(result, [_line(done)], as_json)


async def _shown(here: Installation) -> dict[str, Any]:
    async with attach.attached() as jet:
        last = await jet.last(subjects.LIFECYCLE, subjects.ALL_LIFECYCLE)
        try:
            active, documents = await here.views.active(), await here.views.count()
        finally:
            await here.views.close()
    newest = last.seq if last else 0
    return {
        "store": here.views.kind,
        "generation": active.number,
        "documents": documents,
        "position": active.position,
        "newest": newest,
        "behind": max(newest - active.position, 0),
    }


async def _rebuilt(here: Installation, report: Callable[[Progress], None]) -> Progress:
    async with attach.attached(name=NAME) as jet, _documents(here, jet) as documents:
        return await rebuild_all(jet, here.views, documents, report)


@asynccontextmanager
async def _documents(here: Installation, jet: Jet) -> AsyncIterator[Documents]:
    """Makes documents with the keys of this installation, which stay in their place meanwhile."""
    await here.logged_keys(jet).check()
    here.key_folder.use()
    try:
        index = BlindIndex(await asyncio.to_thread(here.index_key.read))
        yield Documents(KeyStore(here.key_files, here.keyring), index)
    finally:
        here.key_folder.release()
        await here.views.close()


def _line(progress: Progress) -> str:
    """One line about a rebuild, 80 columns."""
    part = f"{progress.position / progress.newest:.0%}" if progress.newest else "0%"
    events = output.count_of(progress.events, "event")
    return f"read models {part} · {events} · {progress.rate:,.0f} a second · {progress.seconds:.1f} s"
