"""Owns `lucid recover`: a session in ERROR back to work, or sealed without what cannot be made."""

from typing import Annotated, Any

import typer

from schemas import subjects
from streams.cli import attach, output
from streams.cli.output import JsonFlag, YesFlag
from streams.control.client import call


def recover(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="Its name.")],
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Give up the chunks that cannot be made; end the recording.")
    ] = False,
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Bring a session in ERROR back to work: what is missing is made again."""
    name = subjects.session_id(session)
    if accept_loss:
        output.confirm(f"Seal {name} without what cannot be made? The manifest will show each gap.", yes)

    async def work() -> dict[str, Any]:
        async with attach.attached(serving=True) as jet:
            return await call(jet, "recover", {"session": name, "accept_loss": accept_loss})

    shown = attach.run(work())
    if as_json:
        output.emit(shown)
    else:
        output.say(f"{name} is {shown['state']}; see lucid watch {name}")
