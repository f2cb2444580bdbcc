"""Moves keys from and to one `keys/` folder.

    <keys>/moving      the path of the new place; until the move is complete no process uses the folder
    <keys>/moved       the same path, for good: the keys are there, and this folder is never used again
    <keys>/arriving    a command; until it has filled or emptied the folder, no process uses it

1. Each note is durable before the step that it announces.
2. Emptying overwrites a file before it removes its name, so after a crash the next try finds every rest.
3. A role holds a shared flock on the folder that it uses (infra.keys.folder); a move holds an exclusive one.
"""

import os
from contextlib import AbstractContextManager
from pathlib import Path

from infra.blobs import direct_io
from infra.blobs.disk import DiskBlobs
from infra.disk.data_dir import make_writable_folder, nearest_there
from infra.disk.durable import opened_folder, sync_folder, write_private
from infra.disk.errors import translated
from infra.keys.folder import (
    ARRIVING,
    COPIED,
    ERASED,
    JOINED,
    MIRRORED,
    MOVED,
    MOVING,
    NEWEST,
    RESTORING,
    KeyFolder,
)
from infra.keys.medium import disks, medium
from infra.keys.overwriting import overwrite
from infra.keys.session_keys import DiskKeyFiles
from schemas.errors import Misuse
from schemas.ports import Erasure

SESSIONS = "sessions"
OURS = {JOINED, ERASED, RESTORING, NEWEST, MOVING, MOVED, ARRIVING, MIRRORED, SESSIONS}
OF_THE_DISK = "lost+found"
"""An empty folder that ext4 has at its top."""


class DiskKeyPlace:
    """The port KeyPlace. Making the object touches nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().resolve()
        self.folder = KeyFolder(self.path, is_alone=False)
        self.files = DiskKeyFiles(self.path / SESSIONS)
        self._notes = DiskBlobs(self.path, area="keys")

    def alone(self) -> AbstractContextManager[None]:
        return self.folder.alone()

    def prepare(self) -> None:
        try:
            str(self.path).encode()  # the notes hold it
        except UnicodeError:
            raise Misuse(f"{str(self.path)!r} is not UTF-8", code="config.path") from None
        above = nearest_there(self.path)
        make_writable_folder(self.path, variable="")
        with translated(self.path, "keys"):
            with opened_folder(self.path) as folder:
                found = medium(folder)
            for parent in self.path.parents:
                if above != self.path and parent.is_relative_to(above):
                    sync_folder(parent)
        if found.is_network:
            raise Misuse(
                f"{self.path} lies on {found.kind}; a key on a network file system cannot be erased",
                code="keys.network",
                hint="name a folder on a local disk",
            )

    def disks(self) -> frozenset[str]:
        with translated(self.path, "keys"):
            return disks(nearest_there(self.path))

    def is_vacant(self) -> bool:
        return not self._names() - {MOVED}

    def strangers(self) -> list[str]:
        names = sorted(name for name in self._names() if name not in OURS and not COPIED.fullmatch(name))
        return [name for name in names if not name.startswith(".") and (self.path / name).is_file()]

    def moving_to(self) -> str:
        return (self._notes.read(MOVING) or self._notes.read(MOVED) or b"").decode()

    def is_leaving(self) -> bool:
        return self._notes.read(MOVING) is not None

    def is_left(self) -> bool:
        return self._notes.read(MOVED) is not None

    def arriving(self) -> bool:
        return self._notes.read(ARRIVING) is not None

    def begin_leaving(self, to: Path) -> None:
        self._notes.put(MOVING, str(to).encode())

    def note_left(self, to: Path) -> None:
        with translated(self.path, "keys"):
            write_private(self.path / MOVED, str(to).encode())

    def vacate(self) -> Erasure:
        proven = True
        with translated(self.path, "keys"):
            for at in sorted((self.path / SESSIONS).rglob("*"), reverse=True):
                if at.is_dir() and not at.is_symlink():
                    at.rmdir()
                else:
                    proven &= _removed(at)
            for name in sorted(self._names() - {MOVED, MOVING, ARRIVING}):
                at = self.path / name
                if name == SESSIONS:
                    at.rmdir()
                elif at.is_symlink() or not at.is_dir():  # a folder in it is not ours
                    proven &= _removed(at)
        return "overwritten" if proven else "unproven"

    def reclaim(self) -> None:
        # First: a crash after this leaves files that look erased, and the next call removes them.
        self.folder.note_erased(0)
        with translated(self.path, "keys"):
            for folder in (self.path / SESSIONS).glob("*/"):
                for file in folder.glob("*.key"):
                    if not file.stat().st_size:
                        file.unlink()
                sync_folder(folder)
        self._notes.remove(MOVED)

    def end_leaving(self) -> None:
        self._notes.remove(MOVING)

    def begin_arriving(self, command: str) -> None:
        with translated(self.path, "keys"):
            write_private(self.path / ARRIVING, command.encode())
        self._notes.remove(MOVED)

    def end_arriving(self) -> None:
        self._notes.remove(ARRIVING)

    def _names(self) -> set[str]:
        with translated(self.path, "keys"):
            try:
                return set(os.listdir(self.path)) - {OF_THE_DISK}
            except FileNotFoundError:
                return set()


def _removed(path: Path) -> bool:
    """Overwrite and unlink a file; return whether nothing is proven to be left. A link is only unlinked."""
    proven = True
    if not path.is_symlink():
        with direct_io.opened_file(path, os.O_RDWR | os.O_NOFOLLOW) as file:
            proven = overwrite(file)
            os.ftruncate(file, 0)
            os.fsync(file)
    # A crash around here leaves an empty file, or its name: the next try removes it.
    path.unlink()
    return proven
