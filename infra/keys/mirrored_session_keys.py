"""Keeps the key file of each session in two folders: in `keys/` and in its mirror on another disk.

1. A key counts when it is durable in both. Making looks into the mirror before it makes anything new: a key
   that only the mirror has is the session's key.
2. Reading takes the first folder, and the mirror where a file is missing or unreadable in the first.
3. Erasing reaches for both, whatever one of them says, and is done only when it is done in both.
4. The two files of a session hold one data key, and need not be equal: each is replaced for what it holds, so
   a damaged one never takes the place of a whole one. The first one's lock is held for both.
5. An erasure in one folder is an erasure in both (`sweep`). What one lacks it gets from the other; since its
   bytes may have lain there before, it is not proven there.
"""

import heapq
from collections.abc import Callable, Iterator

from schemas.errors import LucidError, Unavailable
from schemas.ports import Erasure, KeyFiles, OpenKeyFile


class MirroredKeyFiles:
    """The port KeyFiles over two others. Making the object touches nothing."""

    def __init__(self, first: KeyFiles, mirror: KeyFiles) -> None:
        self._first, self._mirror = first, mirror

    def make(self, uid: bytes, data: bytes) -> bytes:
        return self._made(uid, data, is_new=True)

    def put_back(self, uid: bytes, data: bytes) -> bytes:
        return self._made(uid, data, is_new=False)

    def _made(self, uid: bytes, data: bytes, *, is_new: bool) -> bytes:
        mirrored = _content(self._mirror, uid)
        if mirrored == b"":
            return b""  # it is being erased: whoever erases it comes to the first folder, too
        if mirrored:
            return self._first.put_back(uid, mirrored)
        there = (self._first.make if is_new else self._first.put_back)(uid, data)
        # A crash here leaves a key that nobody was told of: the next call, or the next start, mirrors it.
        if there:
            put = self._mirror.make if is_new and there == data else self._mirror.put_back
            if not put(uid, there):
                return b""
        return there

    def open(self, uid: bytes) -> OpenKeyFile | None:
        try:
            file = self._first.open(uid)
        except Unavailable:
            mirrored = self._mirror.open(uid)
            if mirrored is None:
                raise  # nobody knows that there is none
            return mirrored
        return self._mirror.open(uid) if file is None else file

    def replace(self, uid: bytes, make: Callable[[bytes], bytes | None]) -> Erasure | None:
        mirrored: Erasure | None = None

        def make_both(old: bytes) -> bytes | None:
            nonlocal mirrored
            made = make(old)
            # A crash after this leaves the new file in the mirror alone: the next rotation brings both along.
            mirrored = self._mirror.replace(uid, lambda there: made if there == old else make(there))
            return made

        first = self._first.replace(uid, make_both)
        return _both(first, mirrored)

    def erase(self, uid: bytes, *, was_made: bool = True) -> Erasure:
        outcomes: list[Erasure | None] = []
        failed: LucidError | None = None
        # The first folder first: who reads takes that one. A crash between the two is brought to its end by
        # the same call, or by the next start.
        for files in (self._first, self._mirror):
            try:
                outcomes.append(files.erase(uid, was_made=was_made))
            except LucidError as error:
                failed = failed or error
        if failed is not None:
            raise failed
        return _both(*outcomes) or "unproven"

    def vouch(self, uid: bytes, data: bytes) -> None:
        self._first.vouch(uid, data)
        self._mirror.vouch(uid, data)

    def doubt(self, uid: bytes) -> None:
        self._first.doubt(uid)
        self._mirror.doubt(uid)

    def uids(self) -> Iterator[bytes]:
        last = b""
        for uid in heapq.merge(self._first.uids(), self._mirror.uids()):
            if uid != last:
                yield uid
            last = uid

    def states(self) -> Iterator[tuple[bytes, bool]]:
        for uid, first, mirrored in self._pairs():
            yield uid, first is True or mirrored is True

    def sweep(self) -> int:
        swept = self._first.sweep() + self._mirror.sweep()
        for uid, first, mirrored in self._pairs():
            if first != mirrored:
                swept += 1
                if first or mirrored:
                    self.erase(uid)
                else:
                    self._mirror_one(uid)
        return swept

    def unproven(self) -> str:
        return self._first.unproven() or self._mirror.unproven()

    def _mirror_one(self, uid: bytes) -> None:
        for one, other in ((self._first, self._mirror), (self._mirror, self._first)):
            data = _content(one, uid)
            if data:
                other.put_back(uid, data)

    def _pairs(self) -> Iterator[tuple[bytes, bool | None, bool | None]]:
        """Each session, and whether it is erased in the first folder, and in the mirror; None: no file."""
        first, mirrored = self._first.states(), self._mirror.states()
        one, other = next(first, None), next(mirrored, None)
        while one is not None or other is not None:
            if other is None or (one is not None and one[0] < other[0]):
                assert one is not None
                yield *one, None
                one = next(first, None)
            elif one is None or other[0] < one[0]:
                yield other[0], None, other[1]
                other = next(mirrored, None)
            else:
                yield *one, other[1]
                one, other = next(first, None), next(mirrored, None)


def _content(files: KeyFiles, uid: bytes) -> bytes | None:
    """Empty: it is erased; None: there is none."""
    file = files.open(uid)
    if file is None:
        return None
    file.close()
    return file.data


def _both(*outcomes: Erasure | None) -> Erasure | None:
    """What is known of both; None: neither had anything."""
    known = [outcome for outcome in outcomes if outcome is not None]
    if not known:
        return None
    return "overwritten" if all(outcome == "overwritten" for outcome in known) else "unproven"
