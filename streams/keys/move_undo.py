"""Gives up a move of `keys/` that cannot be completed; the old folder is used again.

    the new folder is overwritten, if it can be → keys that its disk may keep are marked unproven
    → if the old folder was being emptied: keys/erased is 0, empty key files go, moved goes → moving goes

1. Before the old folder holds `moved` it has every key: the undo loses none.
2. After that, only `move` goes on as long as the new folder has the keys. If its disk is lost, the keys that
   were overwritten here are lost with it; a copy or the mirror brings them back.
3. An overwritten key file looks like an erasure. So the undo removes all empty files, and the next start
   erases again every key that the log names.
4. Until the undo is complete no role starts. After a crash the same call completes it; it may prove less.
"""

import shlex
from functools import partial
from typing import NamedTuple

from schemas.config.logs import logger
from schemas.errors import Denied, RefusedByState, Retryable
from schemas.ports import KeyPlace
from streams.keys.mirror import doubt, end_session
from streams.keys.move import each

log = logger("lucid.keys")


class Undone(NamedTuple):
    """The outcome of an undo."""

    overwritten: bool
    """Whether the new folder could be overwritten."""
    unproven: int
    """Keys that the new disk may keep: their erasure is not proven any more."""
    is_partial: bool
    """Whether keys of the old folder were overwritten before."""


def undo(old: KeyPlace, new: KeyPlace) -> Undone:
    """Use the old folder again. No role may be running. Safe to repeat.

    new: the place that `moving_to` of the old one names. Raises RefusedByState (keys.not_moving), Denied
    (keys.moving: the new folder has all keys), Unavailable (keys.busy, keys.io).
    """
    if not old.is_leaving():
        raise RefusedByState(f"no move of {old.path} was interrupted", code="keys.not_moving")
    with old.alone():
        is_partial = old.is_left()
        if is_partial and _holds_keys(old, new):
            raise Denied(
                f"{new.path} has all keys of {old.path}, which is partly overwritten",
                code="keys.moving",
                hint=f"complete the move: lucid keys move {shlex.quote(str(new.path))}",
            )
        unproven = None if is_partial else _overwrite(old, new)
        overwritten = unproven is not None
        if unproven is None:
            unproven = sum(each(partial(doubt, old.files), old.files.uids()))
        if is_partial:
            old.reclaim()
        old.end_leaving()
    log.warning("keys_move_undone", to=new.path, overwritten=overwritten, unproven=unproven)
    return Undone(overwritten, unproven, is_partial)


def _holds_keys(old: KeyPlace, new: KeyPlace) -> bool:
    try:
        name = new.folder.installation()
    except Retryable:
        return False
    return name != b"" and old.folder.installation() in (b"", name)


def _overwrite(old: KeyPlace, new: KeyPlace) -> int | None:
    """Return how many keys the new disk may keep; None: the new folder cannot be reached or overwritten."""
    try:
        if not new.arriving() or new.folder.installation() not in (b"", old.folder.installation()):
            return None
        with new.alone():
            unproven = sum(each(partial(end_session, old.files, new.files), new.files.uids()))
            new.vacate()
            new.end_arriving()
    except Retryable as error:
        log.warning("keys_move_target_left", path=new.path, error=error)
        return None
    return unproven
