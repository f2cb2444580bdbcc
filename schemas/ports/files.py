"""The ports of the disk: whole files by name, files without names, and the data directory."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from schemas.format.digest import Buffer, Content
from schemas.ports.evidence import Evidence
from schemas.ports.scrub_place import ScrubPlace

NO_FILE = "blobs.no_file"
"""Code of Unavailable: a folder, pipe or device has the name of a file."""


class OpenBlob(Protocol):
    """A stored file, open for reading; the caller closes it. Calls block."""

    @property
    def size(self) -> int: ...

    @property
    def stamp(self) -> tuple[int, ...]:
        """Equal while the file is the same and unchanged."""

    def content(self) -> Content:
        """Return length and digest of its bytes on the disk. Memory holds one piece at a time."""

    def read_at(self, at: int, count: int) -> bytes:
        """Return at most `count` bytes from a position on; fewer only at the end of the file."""

    def close(self) -> None:
        """A second call does nothing."""


class NewBlob(Protocol):
    """A file that has no name yet; the caller closes it. Without `keep` nothing of it stays. Calls block.

    Every call raises NoSpace (blobs.space) and Unavailable (blobs.io). After an error: close it.
    """

    def write(self, piece: Buffer) -> None:
        """Append all of `piece`."""

    def settle(self) -> Content:
        """Make the bytes durable, and return length and digest as they are read back from the disk."""

    def read(self) -> bytes:
        """Return all bytes from the disk. Call `settle` before."""

    def keep(self, name: str) -> Literal["created", "exists"]:
        """Give the file its name, unless the name is taken. Durable on either answer. Call `settle` before.

        A second call answers "exists". Raises Misuse (blobs.name).
        """

    def close(self) -> None:
        """Release it; a file without a name is gone. A second call does nothing."""


class Blobs(Protocol):
    """Whole files by name (`<uid>/<index>`): durable, never overwritten. Calls block: use threads.

    Any number of threads and processes may share one store. Every call raises Unavailable (blobs.io), and
    Misuse (blobs.name) for a name that points outside the store.
    """

    def put(self, name: str, data: Buffer) -> Literal["created", "exists"]:
        """Write a file unless the name exists; an existing file stays as it is.

        On either answer a whole file is durable under the name. A second call answers "exists"; its `data` is
        not compared. Raises NoSpace (blobs.space).
        """

    def read(self, name: str) -> bytes | None:
        """Return the bytes from the disk, not from the page cache; None: no such file.

        Raises Unavailable (NO_FILE).
        """

    def content(self, name: str) -> Content | None:
        """Return length and digest of the bytes that `read` returns. Memory holds one piece at a time."""

    def open(self, name: str) -> OpenBlob | None:
        """Open a file for reading in pieces; None: no such file. Raises Unavailable (NO_FILE)."""

    def new(self) -> NewBlob:
        """Begin a file that comes in pieces."""

    def remove(self, name: str) -> int:
        """Remove one file; with a name that ends in `/`, every file below. Durable.

        Returns how many; a second call: 0.
        """

    def quarantine(self, name: str) -> str | None:
        """Move a file, or any other object of that name, to the quarantine, and keep it there.

        Returns its new name; None: the name is free, as after a first call.
        """


class OverflowFile(Protocol):
    """Bytes outside of memory. They end with the last reference to this object, and with the process."""

    def append(self, data: Buffer) -> int | None:
        """Write all of `data`; return its position. None: it is refused, and may be appended again.

        From one event loop only, on which it may be called: it takes 0.1 ms for a large fragment.
        """

    def read(self, at: int, into: memoryview) -> bool:
        """Fill `into` with the bytes from a position on; False: they cannot be read. Blocks: use a thread."""


class Overflow(Protocol):
    """Room for bytes that do not fit into memory, and that can be made again. It raises no error.

    Nothing is durable, and what is read may be damaged: the caller checks it. From one event loop only.
    """

    is_full: bool
    """The last refusal was because the room is used up: only the end of a file makes room."""

    @property
    def used_bytes(self) -> int:
        """Of all files that have a reference."""

    def open(self) -> OverflowFile | None:
        """Return an empty file; None: refused."""


class Disk(NamedTuple):
    """The space of one disk, bytes. free_bytes: for this user."""

    free_bytes: int
    size_bytes: int


class DataDir(Protocol):
    """The data directory: its folders, its owner, and the run file that leads others to the owner.

    A folder is made when its property is read; Misuse (config.path): it cannot be written. Calls block.
    Threads may call at once; `lock` keeps other processes out.
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

    def where(self, name: str) -> Path:
        """Return the place of a folder. Nothing is made."""

    def session_evidence(self, uid: bytes, events: Iterable[bytes]) -> Evidence:
        """Return the evidence of one sealed session. events: the lines of its event log."""

    def scrub_place(self) -> ScrubPlace:
        """Return the place where the scrub keeps its state; each call gives another object."""

    def user(self) -> str:
        """Return the name of the user who runs this process; `uid-<number>` if there is none."""

    def lock(self) -> None:
        """Become the owner until `unlock` or the end of the process. Raises Unavailable (datadir.locked)."""

    def unlock(self) -> None:
        """Release the directory. A second call does nothing."""

    def is_owned(self) -> bool:
        """Whether any process, this one included, owns the directory."""

    def is_there(self) -> bool:
        """Whether the locked folder still has its name."""

    def write_run(self, run: Mapping[str, Any]) -> None:
        """Write how others reach the owner. A reader sees the whole old text or the whole new one."""

    def remove_run(self) -> None:
        """Remove the run file, unless another process wrote it. A second call does nothing."""

    def has_run(self) -> bool:
        """Whether the run file of this process is still there."""

    def read_run(self) -> dict[str, Any] | None:
        """Return the run file of the owner; None: there is no owner, or it is still starting."""

    def check_writable(self, name: str = "") -> None:
        """Check that one of its folders takes files; empty: the directory itself. Nothing is made.

        Raises Unavailable (disk.unwritable), NoSpace (disk.full).
        """

    def free_bytes(self) -> int:
        """Return the free space for this user on the directory's disk, bytes."""

    def disks(self) -> dict[str, Disk]:
        """Return each disk that holds the directory or one of its folders, by the first such folder.

        `data` stands for the directory itself.
        """
