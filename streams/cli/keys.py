"""Owns `lucid keys`: the master key that wraps every session's data key."""

from typing import Any

import typer

from streams.cli import attach, output
from streams.cli.output import JsonFlag
from streams.commands import call

keys = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@keys.callback()
def _group() -> None:
    """The master key that wraps every session's data key."""


@keys.command()
def rotate(as_json: JsonFlag = False) -> None:
    """Make a new version of the master key, and put every data key under it."""

    async def work() -> dict[str, Any]:
        async with attach.attached() as jet:
            return await call(jet, "rotate", {})

    done = attach.run(work())
    if as_json:
        output.emit(done)
    else:
        output.say(
            f"master key version {done['version']}: {output.count_of(done['rewrapped'], 'data key')} "
            f"wrapped anew, {output.count_of(done['erased'], 'old wrap')} erased"
        )
