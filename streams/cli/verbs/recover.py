"""The verb `lucid recover`: brings a session in ERROR back to work, or seals it without its lost chunks."""

from typing import Annotated

import typer

from schemas import subjects
from streams.cli import attach, output
from streams.cli.output import JsonFlag, YesFlag


def recover(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="Its name.")],
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Give up the chunks that cannot be made; end the recording.")
    ] = False,
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Bring a session in ERROR back to work: missing chunks are made again."""
    name = subjects.session_id(session)
    if accept_loss:
        output.confirm(
            f"Seal {name} without the chunks that cannot be made? The manifest will show each gap.", yes
        )
    shown = attach.ask("recover", {"session": name, "accept_loss": accept_loss})
    output.print_result(shown, [f"{name} is {shown['state']}; see lucid watch {name}"], as_json)
