"""`lucid keys move`: puts keys/ into another folder, and overwrites what it leaves."""

from pathlib import Path
from typing import Annotated

import typer

from streams.cli import output
from streams.cli.output import JsonFlag
from streams.keys.move import Moved, move
from streams.roles.drivers import Installation


def move_folder(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Empty or new, on a disk of this machine.")
    ],
    as_json: JsonFlag = False,
) -> None:
    """Move keys/ to another folder, while nothing runs, and overwrite what is left of it here.

    Set KEYS_PATH to the new folder afterwards. If it is interrupted, run it once more: until it is complete
    nothing starts.
    """
    here = Installation.here()
    old, new = here.key_place(), here.key_place(folder)
    here.data.lock()
    try:
        moved = move(old, new)
    finally:
        here.data.unlock()
    if as_json:
        output.emit(
            {
                "from": str(old.path),
                "to": str(new.path),
                **moved._asdict(),
                "setting": {"KEYS_PATH": str(new.path)},
            }
        )
        return
    output.say(f"keys/ moved to {output.home(new.path)}; set KEYS_PATH={new.path}")
    output.note(_left(moved, old.path))


def _left(moved: Moved, old: Path) -> str:
    """What is known of the old place."""
    may = [f"the keys of {output.count_of(moved.unproven, 'session')}"] if moved.unproven else []
    may += ["the master key and the signers"] if moved.rest == "unproven" else []
    said = f"{output.home(old)} is overwritten"
    if may:
        return f"{said}, but its disk may still hold {' and '.join(may)}: destroy that disk; docs/keys.md"
    return (
        f"{said}, and that is proven: nothing of {output.count_of(moved.sessions, 'session')} is left there"
    )
