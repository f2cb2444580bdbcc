"""Fills the mirror of `keys/`, or the folder itself from its mirror, and ends a mirror.

    fill   arriving in the empty folder → mirrored in the whole one → every file → mirrored → arriving goes
    end    arriving in the mirror → its files are overwritten and removed → mirrored goes → arriving goes

1. Only a person decides that an empty folder is filled: at a start it may be a disk that is not mounted.
2. While `arriving` is in a folder, and `mirrored` in the other, no role starts: neither with the mirror nor
   without it. After a crash the same call completes it.
3. A key file that does not open is replaced by the other folder's, if that one opens.
4. Keys in the first mirror of an installation count as proven as in the folder. In later mirrors they do not:
   keys may lie on the disk of an earlier one.
5. A mirror that ends leaves a doubt about each key whose overwriting there was not proven. A mirror that
   cannot be reached leaves a doubt about every key.
"""

from contextlib import ExitStack, nullcontext
from functools import partial
from typing import NamedTuple

from schemas.config.logs import logger
from schemas.errors import Denied
from schemas.ports import Erasure, KeyFiles, KeyFolder, KeyPlace, Keyring
from streams.keys.copies import Masters, masters_of
from streams.keys.move import carry, content_of, each, require_apart, require_no_strangers, require_target

FILL, END = "lucid keys mirror", "lucid keys mirror --end"

log = logger("lucid.keys")


class Mirrored(NamedTuple):
    """The result of `fill` or `end`."""

    filled: str
    """The folder that was filled; empty: neither was."""
    sessions: int
    """Keys of sessions that were put into it, or overwritten in the mirror that ended."""
    unproven: int = 0
    """Keys that can no longer be proven erased, because of the mirror that ended."""
    mended: int = 0
    """Damaged key files that were replaced by the other folder's."""


def fill(first: KeyPlace, mirror: KeyPlace, folder: KeyFolder, files: KeyFiles, keyring: Keyring) -> Mirrored:
    """Bring both folders to one state; one of them may be empty. No role may be running.

    folder, files, keyring: of both places as one. Raises Misuse (keys.move, keys.network), Denied
    (keys.missing, keys.foreign, keys.restoring, keys.moving, keys.moved, keys.mirror_differs), Unavailable,
    NoSpace.
    """
    one, two = first.folder.installation(), mirror.folder.installation()
    if one and two and not first.arriving() and not mirror.arriving():
        with folder.alone():
            folder.reconcile()
            files.sweep()
            mend = partial(_mend, first.files, mirror.files, masters_of(keyring))
            uids = [uid for uid, is_erased in files.states() if not is_erased]
            return Mirrored("", 0, mended=sum(each(mend, uids)))
    source, target = (mirror, first) if first.arriving() or not one else (first, mirror)
    require_apart(source, target)
    _require_fillable(source)
    with ExitStack() as alone:
        alone.enter_context(source.alone())
        target.prepare()
        alone.enter_context(target.alone())
        require_target(source, target)
        put = target.files.put_back if source.folder.is_mirrored() else target.files.make
        target.begin_arriving(FILL)
        # Before the first key is there: from now on the whole folder is not used without the other.
        source.folder.note_mirrored()
        carry(source, target, put)
        target.folder.note_mirrored()
        target.end_arriving()
    sessions = sum(not is_erased for _, is_erased in target.files.states())
    log.warning("keys_mirrored", path=target.path, sessions=sessions)
    return Mirrored(str(target.path), sessions)


def end(first: KeyPlace, mirror: KeyPlace | None) -> Mirrored:
    """End the mirror: overwrite it, if it can be reached. No role may be running.

    Raises Denied (keys.missing), Unavailable.
    """
    name = first.folder.installation()
    if not name:
        raise Denied(
            f"{first.path} is missing or empty", code="keys.missing", hint=f"fill it from its mirror: {FILL}"
        )
    doubted, emptied = 0, 0
    if mirror is not None and not (mirror.folder.installation() == name or mirror.arriving()):
        mirror = None  # it cannot be reached
    with first.alone(), mirror.alone() if mirror else nullcontext():
        if mirror is not None:
            emptied = sum(not is_erased for _, is_erased in mirror.files.states())
            require_no_strangers(mirror)
            mirror.begin_arriving(END)
            doubted = sum(each(partial(end_session, first.files, mirror.files), mirror.files.uids()))
            mirror.vacate()
        else:
            doubted = sum(each(partial(doubt, first.files), first.files.uids()))
        first.folder.forget_mirror()
        if mirror is not None:
            mirror.end_arriving()
    log.warning("keys_mirror_ended", sessions=emptied, unproven=doubted)
    return Mirrored("", emptied, doubted)


def _require_fillable(source: KeyPlace) -> None:
    if not source.folder.installation():
        raise Denied(
            f"{source.path} and its mirror are both missing or empty",
            code="keys.missing",
            hint="the first start of an installation makes both; else mount their disks",
        )
    source.folder.require_usable()
    if source.folder.restoring():
        raise Denied(
            f"{source.path} is being restored, or that was interrupted",
            code="keys.restoring",
            hint="run it once more: lucid keys restore FILE",
        )


def _mend(first: KeyFiles, mirror: KeyFiles, masters: Masters, uid: bytes) -> bool:
    """Replace a key file that does not open by one that does. Two that open may differ."""
    one, two = content_of(first, uid), content_of(mirror, uid)
    if one == two:
        return False
    opens_one, opens_two = masters.open(uid, one), masters.open(uid, two)
    if opens_one == opens_two:
        return False
    files, damaged, whole = (mirror, two, one) if opens_one else (first, one, two)
    return files.replace(uid, lambda there: whole if there == damaged else None) is not None


def end_session(first: KeyFiles, mirror: KeyFiles, uid: bytes) -> bool:
    """Whether the key's erasure cannot be proven any more."""
    # Repeated after a crash it says the same.
    outcome: Erasure = mirror.erase(uid)
    return outcome == "unproven" and doubt(first, uid)


def doubt(first: KeyFiles, uid: bytes) -> bool:
    if not content_of(first, uid):
        return False
    first.mark_unproven(uid)
    return True
