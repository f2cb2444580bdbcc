"""The port of a whole `keys/` folder, for moving it and for keeping a mirror of it."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from schemas.ports.keys import Erasure, KeyFiles, KeyFolder


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

    def disks(self) -> frozenset[str]:
        """Return the names of the disks under the folder or its future place, as far as they are visible."""

    def is_vacant(self) -> bool:
        """Whether the folder holds nothing but the note of an earlier move."""

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

    def end_leaving(self) -> None:
        """Note that the move is complete. Durable on return."""

    def begin_arriving(self, command: str) -> None:
        """Make the folder and bar it from use. Durable on return. Raises Misuse (keys.network).

        command: the command that completes the move.
        """

    def end_arriving(self) -> None:
        """Note that the folder may be used. Durable on return."""
