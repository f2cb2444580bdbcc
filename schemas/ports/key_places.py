"""The ports for what is done to a whole `keys/` folder: moving it, and keeping a mirror of it."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from schemas.ports.keys import Erasure, KeyFiles, KeyFolder


class KeyPlace(Protocol):
    """One folder with the keys of an installation, by itself. Calls block; all may be repeated."""

    @property
    def path(self) -> Path:
        """Absolute, without links."""

    @property
    def folder(self) -> KeyFolder: ...

    @property
    def files(self) -> KeyFiles: ...

    def alone(self) -> AbstractContextManager[None]:
        """Keep every role from using the folder. Raises Unavailable (keys.busy): one uses it."""

    def disks(self) -> frozenset[str]:
        """Names of the disks it lies on, or would, as far as they can be seen."""

    def is_vacant(self) -> bool:
        """Whether nothing lies there but the note of an earlier move."""

    def moving_to(self) -> str:
        """Where its keys went, or are going; empty: nowhere."""

    def is_leaving(self) -> bool:
        """Whether a move from here was begun, and is not complete."""

    def is_left(self) -> bool:
        """Whether the new place has all keys, so that this one is only to be overwritten."""

    def arriving(self) -> bool:
        """Whether this folder is being filled, or emptied as a mirror."""

    def begin_leaving(self, to: Path) -> None:
        """From now on nothing may use the folder. Durable on return."""

    def note_left(self, to: Path) -> None:
        """The new place has all keys. Durable on return."""

    def vacate(self) -> Erasure:
        """Overwrite and remove all that is left here; only the notes of the move stay."""

    def end_leaving(self) -> None:
        """The move is complete. Durable on return."""

    def begin_arriving(self, command: str) -> None:
        """Make the folder, and let nothing use it. Durable on return. Raises Misuse (keys.network).

        command: what a person types to complete it.
        """

    def end_arriving(self) -> None:
        """The folder may be used. Durable on return."""
