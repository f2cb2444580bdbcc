"""Keeps the small files of `keys/`, which are made once, in two folders at once.

1. The mirror gets a file first: whatever `keys/` has, a new master key above all, survives its disk. Of two
   makers at once the mirror decides whose bytes count.
2. Reading takes `keys/`, and the mirror where a file is missing or unreadable there.
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
            raise Unavailable(f"{name} is gone from the mirror of keys/", code="keys.mirror_gone")
        # A crash here leaves a file that nothing reads; the next start puts it into keys/, too.
        try:
            outcome = self._first.put(name, decided)
        except BaseException:
            if is_ours:
                with contextlib.suppress(Unavailable):
                    if self._first.read(name) is None:
                        self._mirror.remove(
                            name
                        )  # made for nothing: what took it later would bear an old date
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
    """The small files of `keys/`; mirror: the second folder, where there is one."""
    return DiskBlobs(directory, area="keys") if mirror is None else MirroredBlobs(directory, mirror)


def differs(name: str, first: Path, mirror: Path) -> Denied:
    return Denied(
        f"{first / name} and {mirror / name} are not the same",
        code="keys.mirror_differs",
        hint="move the damaged one away (lucid keys copy holds the right one): the other takes its place",
    )
