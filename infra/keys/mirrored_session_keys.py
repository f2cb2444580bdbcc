"""Stores the key file of each session in two folders: in `keys/` and in its mirror on another disk.

1. A key counts once it is durable in both. Making checks the mirror first: a key that only the mirror has is
   the session's key.
2. Reading takes the first folder, or the mirror if the file is missing or unreadable in the first.
3. Erasing tries both folders even if one fails, and is complete only when both are erased.
4. The two files of a session hold one data key, and may differ. Each is replaced according to its own
   content, so a damaged one never replaces a whole one. The lock of the first covers both.
5. An erasure in one folder becomes an erasure in both (`sweep`). A missing file is copied from the other
   folder; its erasure is not proven there, because its bytes may have been there before.
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
            return b""  # it is being erased, and the eraser will reach the first folder
        if mirrored:
            return self._first.put_back(uid, mirrored)
        there = (self._first.make if is_new else self._first.put_back)(uid, data)
        # A crash here leaves a key that no caller knows; the next call, or the next start, mirrors it.
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
                raise  # it is unknown whether there is one
            return mirrored
        return self._mirror.open(uid) if file is None else file

    def open_now(self, uid: bytes) -> OpenKeyFile | None:
        return self._first.open_now(uid)

    def replace(self, uid: bytes, make: Callable[[bytes], bytes | None]) -> Erasure | None:
        mirrored: Erasure | None = None

        def make_both(old: bytes) -> bytes | None:
            nonlocal mirrored
            made = make(old)
            # A crash after this leaves the new file in the mirror alone; the next rotation replaces both.
            mirrored = self._mirror.replace(uid, lambda there: made if there == old else make(there))
            return made

        first = self._first.replace(uid, make_both)
        return _both(first, mirrored)

    def erase(self, uid: bytes, *, was_made: bool = True) -> Erasure:
        outcomes: list[Erasure | None] = []
        failed: LucidError | None = None
        # The first folder first, as readers use it. After a crash between the two the same call, or the next
        # start, completes the erasure.
        for files in (self._first, self._mirror):
            try:
                outcomes.append(files.erase(uid, was_made=was_made))
            except LucidError as error:
                failed = failed or error
        if failed is not None:
            raise failed
        return _both(*outcomes) or "unproven"

    def mark_proven(self, uid: bytes, data: bytes) -> None:
        self._first.mark_proven(uid, data)
        self._mirror.mark_proven(uid, data)

    def mark_unproven(self, uid: bytes) -> None:
        self._first.mark_unproven(uid)
        self._mirror.mark_unproven(uid)

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
        """Yield each session; whether it is erased in the first folder, in the mirror; None: no file."""
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
    """Return the content; empty: it is erased; None: there is no file."""
    file = files.open(uid)
    if file is None:
        return None
    file.close()
    return file.data


def _both(*outcomes: Erasure | None) -> Erasure | None:
    """Combine two outcomes; None: neither folder had a file."""
    known = [outcome for outcome in outcomes if outcome is not None]
    if not known:
        return None
    return "overwritten" if all(outcome == "overwritten" for outcome in known) else "unproven"
