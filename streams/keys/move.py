"""Moves `keys/` to another folder, and overwrites the old one.

    old/moving → new/arriving → every file is put into the new folder and read back → old/moved
    → each old file is overwritten and removed → new/arriving goes → old/moving goes

1. From the first step to the last no role starts, in either folder; the error names the command that
   completes the move.
2. The old folder loses nothing before the new one has everything (old/moved). After that nothing is read from
   the old one again.
3. After a crash the same call continues where the notes say. The keys cannot have changed in between, since
   nothing started.
4. A key in the new folder may count as proven later only if the old file was, and its overwriting, too. A
   crash between the two leaves it unproven, never the other way round.
"""

import shlex
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple, TypeVar

from schemas.config.logs import logger
from schemas.errors import Denied, Misuse
from schemas.ports import Erasure, KeyFiles, KeyPlace

WRITERS = 8
"""Threads: each waits for the disk."""

log = logger("lucid.keys")
T = TypeVar("T")
PutKey = Callable[[bytes, bytes], bytes]


class Moved(NamedTuple):
    """The result of a move."""

    sessions: int
    """Keys of sessions that were overwritten in the old folder by this call."""
    unproven: int
    """Of the overwritten: keys that may still be on the old disk."""
    rest: Erasure
    """The outcome for the master key, the signers and all other files."""
    resumed: bool
    """An earlier call overwrote some or all of them: its proofs are not known any more."""


def move(old: KeyPlace, new: KeyPlace) -> Moved:
    """Move everything, and return when the old folder holds nothing any more. No role may be running.

    Raises Misuse (keys.move, keys.network), Denied (keys.missing, keys.restoring, keys.moving, keys.moved,
    keys.foreign), Unavailable (keys.busy, keys.io), NoSpace.
    """
    _require_places(old, new)
    resumed = old.is_left()
    if resumed and not old.is_leaving():
        return Moved(0, 0, "overwritten", resumed)
    with ExitStack() as alone:
        alone.enter_context(old.alone())
        if not resumed:
            new.prepare()  # a place that can take no keys is refused before a note bars the start
        alone.enter_context(new.alone())
        _require_movable(old, new)
        if not resumed:
            old.begin_leaving(new.path)
            new.begin_arriving(f"lucid keys move {shlex.quote(str(new.path))}")
            carry(old, new, new.files.put_back)
            old.note_left(new.path)
        outcomes = Counter(each(partial(_overwrite, old.files, new.files), old.files.uids()))
        rest = old.vacate()
        new.end_arriving()
        old.end_leaving()
    moved = Moved(outcomes["overwritten"] + outcomes["unproven"], outcomes["unproven"], rest, resumed)
    log.warning("keys_moved", to=new.path, **moved._asdict())
    return moved


def _require_places(old: KeyPlace, new: KeyPlace) -> None:
    require_apart(old, new)
    if (to := old.moving_to()) not in ("", str(new.path)):
        raise Denied(
            f"the keys of {old.path} were moved to {to}, or are being moved there",
            code="keys.moved" if old.is_left() else "keys.moving",
            hint=f"lucid keys move {shlex.quote(to)} completes it, --undo gives it up"
            if old.is_leaving()
            else f"set KEYS_PATH={shlex.quote(to)}",
        )

    if not old.is_left() and not old.folder.installation():
        raise Denied(
            f"{old.path} is missing or empty: there is nothing to move",
            code="keys.missing",
            hint="set LUCID_DATA or KEYS_PATH to where keys/ is now",
        )


def _require_movable(old: KeyPlace, new: KeyPlace) -> None:
    """Refuse a move that would lose or mix keys, before anything is written."""
    if old.folder.restoring():
        raise Denied(
            f"{old.path} is being restored, or that was interrupted",
            code="keys.restoring",
            hint="run it once more: lucid keys restore FILE",
        )
    if old.is_left():
        if new.folder.installation():
            return
        raise Denied(
            f"{new.path} is missing or empty, and all keys of {old.path} were put there",
            code="keys.missing",
            hint="mount its disk, then run it once more",
        )
    require_no_strangers(old)
    require_target(old, new)


def require_no_strangers(place: KeyPlace) -> None:
    """Refuse to empty a folder with files that are not carried. Raises Misuse (keys.move)."""
    if names := place.strangers():
        raise Misuse(
            f"{place.path / names[0]} is no key, and would be overwritten",
            code="keys.move",
            hint="move it away",
        )


def require_apart(source: KeyPlace, target: KeyPlace) -> None:
    """Refuse one folder inside the other. Raises Misuse (keys.move)."""
    one, two = source.path, target.path
    if one == two or one in two.parents or two in one.parents:
        raise Misuse(
            f"keys cannot go from {one} to {two}: one holds the other",
            code="keys.move",
            hint="name a folder on another disk",
        )


def require_target(source: KeyPlace, target: KeyPlace) -> None:
    """Refuse a folder with other keys than the source's, before anything is written.

    Raises Misuse (keys.move), Denied (keys.foreign).
    """
    if not (target.is_vacant() or target.arriving()):
        raise Misuse(
            f"{target.path} is not empty", code="keys.move", hint="name an empty folder, or a new one"
        )
    if target.folder.installation() not in (b"", source.folder.installation()):
        raise Denied(
            f"{target.path} holds keys of another installation than {source.path}",
            code="keys.foreign",
            hint="name an empty folder, or a new one",
        )


def carry(old: KeyPlace, new: KeyPlace, put: PutKey) -> None:
    """Put everything into the new folder. Durable, and read back, on return.

    put: `put_back` or `make` of the new place's files. Raises Denied (keys.foreign).
    """
    for name, content in old.folder.files():
        new.folder.put_back(name, content)
    if old.folder.joined():
        new.folder.join()
    if old.folder.is_newest():
        new.folder.begin_newest()
    if old.folder.is_mirrored():
        new.folder.note_mirrored(old.folder.pair())
    if up_to := old.folder.erased_up_to():
        new.folder.note_erased(up_to)
    each(partial(_carry_session, old.files, new.files, put), old.files.uids())


def _carry_session(old: KeyFiles, new: KeyFiles, put: PutKey, uid: bytes) -> None:
    data = content_of(old, uid)
    if not data:
        # A repeated erasure has the same outcome in the new folder as in the old one.
        new.erase(uid, was_made=old.erase(uid) != "overwritten")
    elif put(uid, data) != data:
        raise Denied(
            f"another key of session {uid.hex()} stands in the new folder",
            code="keys.foreign",
            hint="empty the new folder, then run it once more",
        )


def _overwrite(old: KeyFiles, new: KeyFiles, uid: bytes) -> Erasure | None:
    """Overwrite one key file; None: it had no key any more."""
    data = content_of(old, uid)
    if not data:
        return None
    outcome = old.erase(uid)
    if outcome == "overwritten":
        new.mark_proven(uid, data)
    return outcome


def content_of(files: KeyFiles, uid: bytes) -> bytes:
    """The contents of the session's key file; empty: it is erased, or absent."""
    file = files.open(uid)
    if file is None:
        return b""
    file.close()
    return file.data


def each(call: Callable[[bytes], T], uids: Iterable[bytes]) -> list[T]:
    """Call it for every session, several at once."""
    with ThreadPoolExecutor(WRITERS, "lucid-keys") as threads:
        return list(threads.map(call, list(uids)))
