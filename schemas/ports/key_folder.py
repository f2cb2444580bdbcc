"""The ports of a whole `keys/` folder: its use, its moves, its mirror."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from schemas.ports.keys import Erasure, KeyFiles


class KeyFolder(Protocol):
    """The folder `keys/`, with the name of its installation. Calls block; every note is durable on return.

    A second call of a note does nothing.
    """

    @property
    def path(self) -> Path: ...

    def require_usable(self) -> None:
        """Return if only the log could still refuse the folder.

        Raises Denied (keys.moving, keys.moved, keys.mirror_unset; of a mirror: keys.mirror, keys.missing,
        keys.foreign, keys.mirror_other).
        """

    def reconcile(self) -> None:
        """Bring folder and mirror to one state. Safe at any time; a second call changes nothing.

        Raises as `require_usable`, and Denied (keys.mirror_differs).
        """

    def require_writable(self) -> None:
        """Return if keys can be made and erased here. Raises Unavailable (keys.read_only, keys.access)."""

    def use(self) -> None:
        """Keep the folder from being moved until `release`, or the end of this object. Repeatable.

        Raises Unavailable (as `require_writable`; keys.busy), Denied (keys.moving, keys.moved).
        """

    def alone(self) -> AbstractContextManager[None]:
        """Keep every role from using the folder. A folder that is not there is used by none.

        Raises Unavailable (keys.busy): a role, or another command, uses it.
        """

    def release(self) -> None:
        """Allow the folder to be moved. A second call does nothing."""

    def installation(self) -> bytes:
        """Return 16 bytes; empty: the folder names no installation. Raises Unavailable (keys.damaged)."""

    def begin(self) -> None:
        """Name the installation in the folder, unless it is named."""

    def joined(self) -> bool:
        """Whether a log has named this folder."""

    def join(self) -> None:
        """Note for ever that a log has named this folder."""

    def erased_up_to(self) -> int:
        """Return the position in the log up to which every erasure is done here; 0: none is known."""

    def note_erased(self, up_to: int) -> None:
        """Note that every erasure up to this position is done here."""

    def unproven(self) -> str:
        """Return why erasure is not proven on this disk; empty: it is. Writes nothing."""

    def restoring(self) -> bool:
        """Whether a restore of a copy is running, or was interrupted by a crash."""

    def begin_restore(self) -> None:
        """Note that a restore begins: no role may use the folder. Raises Denied (keys.moving)."""

    def end_restore(self) -> None:
        """Note that the folder may be used again."""

    def is_newest(self) -> bool:
        """Whether a person said that no newer copy exists, and no start has followed."""

    def begin_newest(self) -> None:
        """Note that the next start may go on without keys that the log knows."""

    def end_newest(self) -> None:
        """Note that a start has gone on without them."""

    def is_mirrored(self) -> bool:
        """Whether there is a mirror: this folder is not used without it."""

    def pair(self) -> str:
        """Return the name that this folder and its mirror have together; empty: none."""

    def note_mirrored(self, name: str) -> None:
        """Note that there is a mirror with the same name in its note. Replaces an earlier name."""

    def forget_mirror(self) -> None:
        """Note that there is no mirror any more."""

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Yield name and content of each file of a copy, without the sessions' key files."""

    def put_back(self, name: str, content: bytes) -> None:
        """Write one of `files`. Durable. Other content under the name is overwritten on the disk."""


class KeyPlace(Protocol):
    """One folder with the keys of an installation. Calls block; a second call does nothing more."""

    @property
    def path(self) -> Path:
        """Absolute path, without symbolic links."""

    @property
    def folder(self) -> KeyFolder: ...

    @property
    def files(self) -> KeyFiles: ...

    def alone(self) -> AbstractContextManager[None]:
        """Keep every role from using the folder. Raises Unavailable (keys.busy): a role uses it."""

    def prepare(self) -> None:
        """Make the folder if need be; its name is durable on return.

        Raises Misuse (keys.network; config.path: it cannot be written), NoSpace (disk.full).
        """

    def disks(self) -> frozenset[str]:
        """Return the names of the disks under the folder or its future place, as far as they are visible."""

    def is_vacant(self) -> bool:
        """Whether the folder holds nothing but the note of an earlier move."""

    def strangers(self) -> list[str]:
        """Return the names of plain files beside the keys that `vacate` would destroy, and no copy holds."""

    def moving_to(self) -> str:
        """Return the target of a move from here, complete or not; empty: there is none."""

    def is_leaving(self) -> bool:
        """Whether a move from here has begun and is not complete."""

    def is_left(self) -> bool:
        """Whether the new place has all keys: this folder must only be overwritten."""

    def arriving(self) -> bool:
        """Whether this folder is being filled, or emptied as a mirror."""

    def begin_leaving(self, to: Path) -> None:
        """Note that a move from here begins: no role may use the folder. Durable on return."""

    def note_left(self, to: Path) -> None:
        """Note that the new place has all keys. Durable on return."""

    def vacate(self) -> Erasure:
        """Overwrite and remove every file except the notes of the move."""

    def reclaim(self) -> None:
        """Take back a folder whose emptying has begun. Durable on return.

        Every empty key file goes, and no erasure is known to be done: the next start repeats all of them.
        """

    def end_leaving(self) -> None:
        """Note that the move is complete. Durable on return."""

    def begin_arriving(self, command: str) -> None:
        """Bar the folder from use. Durable on return.

        command: the command that completes the move.
        """

    def end_arriving(self) -> None:
        """Note that the folder may be used. Durable on return."""
