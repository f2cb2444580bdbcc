"""Fills the mirror of `keys/`, or the folder itself from its mirror, and ends a mirror.

    fill   arriving in the empty folder → mirrored in the whole one → every file → mirrored → arriving goes
    end    arriving in the mirror → its files are overwritten and removed → mirrored goes → arriving goes

1. Only a person decides that an empty folder is filled: at a start it may be a disk that is not mounted.
2. While `arriving` is in a folder, and `mirrored` in the other, no role starts: neither with the mirror nor
   without it. After a crash the same call completes it.
3. A key file that does not open is replaced by the other folder's, if that one opens.
4. Keys in the first mirror of an installation count as proven as in the folder. In later mirrors they do not:
   keys may lie on the disk of an earlier one.
5. `mirrored` holds one random name in both folders. Two folders without the same name are paired by `fill`
   alone. Their keys are not proven any more, since the disk of an earlier mirror may have them.
6. A mirror that ends leaves a doubt about each key whose overwriting there was not proven. A mirror that
   cannot be reached, or is not the last one, leaves a doubt about every key.
"""

import secrets
from contextlib import ExitStack, suppress
from functools import partial
from typing import NamedTuple

from schemas.config.logs import logger
from schemas.errors import Denied, Unavailable
from schemas.ports import Erasure, KeyFiles, KeyFolder, KeyPlace, Keyring
from streams.keys.copies import Masters, masters_of
from streams.keys.move import carry, content_of, each, require_apart, require_no_strangers, require_target

FILL, END = "lucid keys mirror", "lucid keys mirror --end"
PAIR_BYTES = 16

log = logger("lucid.keys")


class Mirrored(NamedTuple):
    """The result of `fill` or `end`."""

    filled: str
    """The folder that was filled; empty: neither was."""
    sessions: int
    """Keys of sessions that were put into it, or overwritten in the mirror that ended."""
    unproven: int = 0
    """Keys that can no longer be proven erased: a mirror that ended, or an earlier one, may have them."""
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
            unproven = _pair(first, mirror, folder)
            folder.reconcile()
            files.sweep()
            mend = partial(_mend, first.files, mirror.files, masters_of(keyring))
            uids = [uid for uid, is_erased in files.states() if not is_erased]
            return Mirrored("", 0, unproven, mended=sum(each(mend, uids)))
    source, target = (mirror, first) if first.arriving() or not one else (first, mirror)
    require_apart(source, target)
    _require_fillable(source)
    with ExitStack() as alone:
        alone.enter_context(source.alone())
        target.prepare()
        alone.enter_context(target.alone())
        require_target(source, target)
        put, unproven = target.files.make, 0
        if source.folder.is_mirrored():
            put = target.files.put_back
            if not target.arriving():  # else an earlier call did it, where it was due
                unproven = _doubt_all(source)
        target.begin_arriving(FILL)
        name = secrets.token_hex(PAIR_BYTES)
        # Before the first key is there: from now on the whole folder is not used without the other.
        source.folder.note_mirrored(name)
        carry(source, target, put)
        target.folder.note_mirrored(name)
        target.end_arriving()
    sessions = sum(not is_erased for _, is_erased in target.files.states())
    log.warning("keys_mirrored", path=target.path, sessions=sessions)
    return Mirrored(str(target.path), sessions, unproven)


def end(first: KeyPlace, mirror: KeyPlace | None) -> Mirrored:
    """End the mirror: overwrite it, if it can be reached. No role may be running.

    Raises Denied (keys.missing), Misuse (keys.move), NoSpace, Unavailable (keys.busy, or keys/ fails).
    """
    name = first.folder.installation()
    if not name:
        raise Denied(
            f"{first.path} is missing or empty", code="keys.missing", hint=f"fill it from its mirror: {FILL}"
        )
    with first.alone(), ExitStack() as alone:
        ended: Mirrored | None = None
        if mirror is not None:
            try:
                ended = _emptied(first, mirror, name, alone)
            except Unavailable as error:
                if error.code == "keys.busy":
                    raise
                log.warning("keys_mirror_left", path=mirror.path, error=error)
        # If it was `first` that failed, this fails, too.
        done = ended or Mirrored("", 0, _doubt_all(first))
        first.folder.forget_mirror()
        if mirror is not None and ended is not None:
            with suppress(Unavailable):  # its disk fails at last, and is not used any more
                mirror.end_arriving()
    log.warning("keys_mirror_ended", sessions=done.sessions, unproven=done.unproven)
    return done


def _emptied(first: KeyPlace, mirror: KeyPlace, name: bytes, alone: ExitStack) -> Mirrored | None:
    """Overwrite the mirror; None: it is not there. Raises Unavailable: its disk fails, or `first` does."""
    there = mirror.folder.installation()
    if there != name and (there or not mirror.arriving()):
        return None
    alone.enter_context(mirror.alone())
    require_no_strangers(mirror)
    sessions = sum(not is_erased for _, is_erased in mirror.files.states())
    doubted = 0
    if not first.folder.pair() or first.folder.pair() != mirror.folder.pair():
        doubted = _doubt_all(first)  # the last mirror is another one
    mirror.begin_arriving(END)
    unproven = sum(each(partial(end_session, first.files, mirror.files), mirror.files.uids()))
    mirror.vacate()
    return Mirrored("", sessions, max(doubted, unproven))


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


def _pair(first: KeyPlace, mirror: KeyPlace, folder: KeyFolder) -> int:
    """Use these two together from now on; return how many keys cannot be proven erased any more."""
    try:
        folder.require_usable()
    except Denied as error:
        if error.code != "keys.mirror_other":
            raise
    else:
        return 0
    # After a crash the names differ still, and the next call does it again.
    unproven = max(_doubt_all(place) for place in (first, mirror))
    folder.note_mirrored(secrets.token_hex(PAIR_BYTES))
    return unproven


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


def _doubt_all(place: KeyPlace) -> int:
    return sum(each(partial(doubt, place.files), place.files.uids()))


def doubt(first: KeyFiles, uid: bytes) -> bool:
    if not content_of(first, uid):
        return False
    first.mark_unproven(uid)
    return True
