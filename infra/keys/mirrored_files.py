"""Stores the small files of `keys/`, which are made once, in two folders.

1. The mirror gets a file first: then every file of `keys/`, above all a new master key, survives its disk. If
   two processes make one at once, the bytes in the mirror count.
2. Reading takes `keys/`, or the mirror if the file is missing or unreadable there.
"""

import contextlib
from pathlib import Path
from typing import Literal

from infra.blobs.disk import DiskBlobs
from schemas.errors import Denied, Unavailable


class MirroredBlobs:
    """`put`, `read` and `list` of the port Blobs, over two folders."""

    def __init__(self, first: Path, mirror: Path) -> None:
        self._first, self._mirror = DiskBlobs(first, area="keys"), DiskBlobs(mirror, area="keys")

    def put(self, name: str, data: bytes) -> Literal["created", "exists"]:
        is_ours = self._mirror.put(name, data) == "created"
        decided = self._mirror.read(name)
        if decided is None:
            raise Unavailable(f"{name} disappeared from the mirror of keys/", code="keys.mirror_gone")
        # A crash here leaves a file that nothing reads; the next start copies it into keys/.
        try:
            outcome = self._first.put(name, decided)
        except BaseException:
            if is_ours:
                with contextlib.suppress(Unavailable):
                    if self._first.read(name) is None:
                        self._mirror.remove(name)  # else a later use of it would have an old date
            raise
        if outcome == "exists" and self._first.read(name) != decided:
            raise differs(name, self._first.root, self._mirror.root)
        return "created" if outcome == "created" and decided == data else "exists"

    def read(self, name: str) -> bytes | None:
        try:
            found = self._first.read(name)
        except Unavailable:
            found = self._mirror.read(name)
            if found is None:
                raise
        return self._mirror.read(name) if found is None else found

    def list(self, prefix: str = "") -> list[str]:
        try:
            found = self._first.list(prefix)
        except Unavailable:
            found = []
        return found or self._mirror.list(prefix)


def key_blobs(directory: Path, mirror: Path | None) -> DiskBlobs | MirroredBlobs:
    """Return the store of the small files of `keys/`. mirror: the second folder, if there is one."""
    return DiskBlobs(directory, area="keys") if mirror is None else MirroredBlobs(directory, mirror)


def differs(name: str, first: Path, mirror: Path) -> Denied:
    return Denied(
        f"{first / name} and {mirror / name} differ",
        code="keys.mirror_differs",
        hint="move the damaged one away (a copy of keys/ shows which); the other one replaces it",
    )
