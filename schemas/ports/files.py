"""Owns what services ask of the disk: whole files by name, and where things lie."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from schemas.format.digest import Buffer, Content
from schemas.ports.evidence import Evidence

NO_FILE = "blobs.no_file"
"""Code of Unavailable: a folder, pipe or device has the name of a file."""


class Blobs(Protocol):
    """Whole files by name (`<uid>/<index>`): durable, never overwritten. Calls block: use threads.

    Any number of threads and processes may share one place. All raise Unavailable (blobs.io), and Misuse
    (blobs.name) for a name that could lead elsewhere.
    """

    def put(self, name: str, data: Buffer) -> Literal["created", "exists"]:
        """Make `data` durable under `name`, unless something is there already: that stays as it is.

        Either answer means that a whole file is durable there. Raises NoSpace (blobs.space).
        """

    def read(self, name: str) -> bytes | None:
        """The bytes as the disk has them, not as memory remembers them; None: no such file.

        Raises Unavailable (NO_FILE).
        """

    def content(self, name: str) -> Content | None:
        """Length and digest of what `read` would give, without holding it in memory."""

    def remove(self, prefix: str) -> int:
        """Durably remove all whose names begin so; how many. Safe to repeat."""

    def quarantine(self, name: str) -> str | None:
        """Take a file, or what stands in its place, away from its name, and keep it.

        Its new name; None: nothing is there.
        """


class DataDir(Protocol):
    """The data directory: where things lie, and who owns it. Folders are made when they are asked for.

    A folder that cannot be written raises Misuse (config.path).
    """

    @property
    def path(self) -> Path: ...

    @property
    def chunks(self) -> Path: ...

    @property
    def manifests(self) -> Path: ...

    @property
    def logs(self) -> Path: ...

    @property
    def temp(self) -> Path: ...

    def session_evidence(self, uid: bytes, events: Iterable[bytes]) -> Evidence:
        """The evidence of one sealed session. events: its event log."""

    def add_log_line(self, name: str, line: bytes) -> None:
        """Add one line to a file in `logs`; it is durable on return. Raises OSError."""

    def user(self) -> str:
        """The name of the user who runs this process; `uid-<number>` if there is none."""

    def lock(self) -> None:
        """Become the owner until `unlock` or the end of the process. Raises Unavailable (datadir.locked)."""

    def unlock(self) -> None:
        """Give the directory up. A second call does nothing."""

    def is_owned(self) -> bool:
        """Whether some process, this one included, owns it."""

    def is_there(self) -> bool:
        """Whether the folder that was locked still has its name."""

    def write_run(self, run: Mapping[str, Any]) -> None:
        """Tell others how to reach the owner. A reader sees the old text or the new."""

    def remove_run(self) -> None:
        """Tell nobody any more. Leaves alone what another process wrote. A second call does nothing."""

    def has_run(self) -> bool:
        """Whether others still find what `write_run` wrote."""

    def read_run(self) -> dict[str, Any] | None:
        """What the owner wrote; None: nobody owns it, or the owner is still starting."""

    def free_bytes(self) -> int:
        """Free space for this user on its disk."""
