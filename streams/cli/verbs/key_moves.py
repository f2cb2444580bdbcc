"""The verbs `lucid keys move` and `lucid keys mirror`: put keys/ into another or a second folder."""

from pathlib import Path
from typing import Annotated

import typer

from schemas.errors import Misuse
from schemas.ports import KeyPlace
from streams.cli import output
from streams.cli.output import JsonFlag, YesFlag
from streams.keys.mirror import Mirrored, end, fill
from streams.keys.move import Moved, move
from streams.keys.move_undo import undo
from streams.roles.drivers import Installation


def move_folder(
    folder: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="Empty or new, on a disk of this machine.")
    ] = None,
    is_undo: Annotated[
        bool, typer.Option("--undo", help="Give up an interrupted move, and use the old folder again.")
    ] = False,
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Move keys/ to another folder, while nothing runs, and overwrite the old files.

    Set KEYS_PATH to the new folder afterwards. If it is interrupted, run it again: nothing starts until it is
    complete.
    """
    here = Installation.here()
    old = here.key_place()
    if is_undo == (folder is not None):
        raise Misuse("lucid keys move needs a FOLDER, or --undo", code="usage")
    if folder is None:
        _undo(here, old, yes, as_json)
        return
    new = here.key_place(folder)
    here.data.lock()
    try:
        moved = move(old, new)
    finally:
        here.data.unlock()
    places = {"from": str(old.path), "to": str(new.path)}
    mirror = here.mirror_place()
    setting = "LUCID_KEYS_MIRROR" if mirror and mirror.path == old.path else "KEYS_PATH"
    result = {**places, **moved._asdict(), "setting": {setting: str(new.path)}}
    line = f"keys/ moved to {output.short_path(new.path)}; set {setting}={new.path}"
    output.print_result(result, [line], as_json)
    if not as_json:
        output.note(_left(moved, old.path))


def _undo(here: Installation, old: KeyPlace, yes: bool, as_json: bool) -> None:
    new = here.key_place(Path(old.moving_to() or old.path))
    if old.is_leaving() and old.is_left():
        output.confirm(
            f"Is the disk of {new.path} lost? Keys that were overwritten here need a copy or a mirror.", yes
        )
    here.data.lock()
    try:
        undone = undo(old, new)
    finally:
        here.data.unlock()
    result = {"from": str(old.path), "to": str(new.path), **undone._asdict()}
    output.print_result(result, [f"the move is undone; keys/ is {output.short_path(old.path)}"], as_json)
    if as_json:
        return
    if undone.unproven:
        keys = output.count_of(undone.unproven, "session")
        output.note(f"{new.path} may keep the keys of {keys}: their erasure will say unproven; docs/keys.md")
    if undone.is_partial:
        output.note("some keys were overwritten: lucid keys restore FILE, or lucid keys mirror")


def mirror_folder(
    is_end: Annotated[bool, typer.Option("--end", help="Give up the mirror, and overwrite it.")] = False,
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Bring keys/ and its mirror (LUCID_KEYS_MIRROR) to one state, while nothing runs.

    The empty one is filled from the other: a new mirror, or keys/ on a new disk.
    """
    here = Installation.here()
    mirror = here.mirror_place()
    if is_end:
        where = output.short_path(mirror.path) if mirror else "a mirror that is not named"
        output.confirm(f"Do without {where}? Of keys that stay on its disk no erasure is proven.", yes)
    elif mirror is None:
        raise Misuse(
            "LUCID_KEYS_MIRROR is not set",
            code="config.keys_mirror",
            hint="set it to a folder on another disk",
        )
    here.data.lock()
    try:
        if is_end:
            done = end(here.key_place(), mirror)
        else:
            assert mirror is not None
            done = fill(here.key_place(), mirror, here.key_folder, here.key_files, here.keyring)
    finally:
        here.data.unlock()
    if as_json:
        output.emit(done._asdict())
    elif is_end:
        _say_ended(done)
    elif done.filled:
        count = output.count_of(done.sessions, "session")
        output.say(f"{output.short_path(Path(done.filled))} filled: the keys of {count}, and the rest")
    else:
        mended = f"; {output.count_of(done.mended, 'damaged key file')} replaced" if done.mended else ""
        output.say(f"keys/ and its mirror hold the same{mended}")
    if done.unproven and not as_json:
        count = output.count_of(done.unproven, "session")
        output.note(
            f"keys of {count} may be left on another disk: their erasure will say unproven; docs/keys.md"
        )


def _say_ended(done: Mirrored) -> None:
    overwritten = f", and {output.count_of(done.sessions, 'key')} in it overwritten" if done.sessions else ""
    output.say(f"the mirror is given up{overwritten}; unset LUCID_KEYS_MIRROR")


def _left(moved: Moved, old: Path) -> str:
    """The text for the old folder."""
    may = [f"the keys of {output.count_of(moved.unproven, 'session')}"] if moved.unproven else []
    may += ["the master key and the signers"] if moved.rest == "unproven" else []
    text = f"{output.short_path(old)} is overwritten"
    if moved.resumed:
        return f"{text}; the output of the call before names the proven erasures: docs/keys.md"
    if may:
        return f"{text}, but its disk may still hold {' and '.join(may)}: destroy that disk; docs/keys.md"
    return (
        f"{text}, and that is proven: nothing of {output.count_of(moved.sessions, 'session')} is left there"
    )
