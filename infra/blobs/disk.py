"""Stores whole files on the disk: durable, create-if-absent, read back past the page cache.

A file has its name only when all its bytes are durable. The system calls of one `put`, in order:

    openat(<dir>, O_TMPFILE) → write… → fsync(file) → linkat(name) → fsync(<dir>)

A crash before linkat leaves nothing: the kernel frees an unnamed file. A crash after it leaves the whole
file, perhaps without its name. The caller got no `created` then, and asks again.

1. Nothing is ever overwritten: a second `put` under one name changes no byte and returns `exists`.
2. After a failed fsync the state of a file is unknown, so it is dropped and never linked. A disk that lies
   about its own cache can still lose it.
3. Calls block: run them in threads. Any number of threads and processes may share one root.
4. It knows names and bytes, not their meaning.
"""

import contextlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, TypeVar

from blake3 import blake3

from infra.blobs import direct_io
from infra.blobs.open_blob import NewDiskBlob, OpenDiskBlob
from infra.disk.durable import FILE_MODE, FOLDER_MODE, NO_TMPFILE, opened_folder, sync_folder
from infra.disk.errors import Area, translated
from schemas.errors import Misuse, Unavailable
from schemas.format.digest import Content, content
from schemas.ports.files import NO_FILE

NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,199}(/[A-Za-z0-9_-][A-Za-z0-9_.-]{0,199}){0,3}")
TEMPORARY = ".tmp-"
"""Prefix of temporary names in the root, where O_TMPFILE is missing; no blob's name can begin so."""
NAMED_KEPT = 2000
"""How many folders are remembered as durable. A full set is cleared: folders in use are synced anew."""

T = TypeVar("T")


class DiskBlobs:
    """The port Blobs, below one folder. quarantine: the folder for damaged files."""

    def __init__(self, root: Path, quarantine: Path | None = None, area: Area = "blobs") -> None:
        """area: the first word of the codes of its errors."""
        self.root = root
        self._area = area
        self.quarantine_root = quarantine or root.parent / "quarantine"
        self._tmpfile = hasattr(os, "O_TMPFILE")
        self._named: set[Path] = set()
        """Folders with a durable name, at most NAMED_KEPT."""

    def put(self, name: str, data: bytes | bytearray | memoryview) -> Literal["created", "exists"]:
        path = self._path(name)
        with self._translated(name):
            self._make_durable(path.parent)
            with opened_folder(path.parent) as directory:
                is_new = not _present(path.name, directory) and self._write(path, directory, data)
                # Also for the file of another writer: its name may not be synced yet.
                os.fsync(directory)
                return "created" if is_new else "exists"

    def read(self, name: str) -> bytes | None:
        return self._from_disk(name, direct_io.read_all)

    def content(self, name: str) -> Content | None:
        return self._from_disk(name, lambda file: content(direct_io.pieces(file)))

    def open(self, name: str) -> OpenDiskBlob | None:
        with self._translated(name):
            file = self._opened(name, os.open)
            return OpenDiskBlob(file, lambda: self._translated(name)) if file is not None else None

    def new(self) -> NewDiskBlob:
        with self._translated(""):
            self._make_durable(self.root)
            if self._tmpfile:
                try:
                    file = os.open(self.root, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, FILE_MODE)
                    return NewDiskBlob(file, lambda: self._translated(""), self._link_unnamed, _nothing)
                except OSError as error:
                    if error.errno not in NO_TMPFILE:
                        raise
                    self._tmpfile = False
            temporary = self.root / f"{TEMPORARY}{secrets.token_hex(8)}"
            file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
            return NewDiskBlob(
                file,
                lambda: self._translated(""),
                lambda name, _: self._link(name, str(temporary)),
                lambda: temporary.unlink(missing_ok=True),
            )

    def list(self, prefix: str = "") -> list[str]:
        """Return the names of all blobs that begin with `prefix`, sorted."""
        with self._translated(prefix):
            above, _, begin = prefix.rpartition("/")
            names = (path.relative_to(self.root).as_posix() for path in _files(self.root / above, begin))
            return sorted(name for name in names if name.startswith(prefix))

    def remove(self, name: str) -> int:
        """As the port says. Folders are synced: no crash may bring back a chunk of a destroyed session."""
        if not name:
            raise Misuse("removing needs a name; nothing was removed", code="blobs.name")
        names = [found for found in self.list(name) if found == name or name.endswith("/")]
        with self._translated(name):
            for directory in sorted({self._path(found).parent for found in names}):
                with opened_folder(directory) as handle:
                    for found in names:
                        if self._path(found).parent == directory:
                            with contextlib.suppress(FileNotFoundError):
                                os.unlink(self._path(found).name, dir_fd=handle)
                    os.fsync(handle)
                self._named.discard(directory)
                with contextlib.suppress(OSError):
                    directory.rmdir()
        return len(names)

    def quarantine(self, name: str) -> str | None:
        """As the port says. The new name ends in the file's digest: after a crash nothing is moved twice.

        A file that cannot be read is renamed: no byte of it is asked for.
        """
        try:
            data = self.read(name)
        except Unavailable as error:
            return self._set_aside(name, shutil.move if error.code == NO_FILE else os.rename)
        if data is None:
            return None
        new_name = f"{name}.{blake3(data).hexdigest(16)}"
        source, target = self._path(name), self.quarantine_root / new_name
        # Durable in quarantine first: a crash before the unlink leaves the file in both places.
        DiskBlobs(self.quarantine_root).put(new_name, data)
        with self._translated(name), contextlib.suppress(FileNotFoundError):
            source.unlink()
            sync_folder(source.parent)
        return target.relative_to(self.quarantine_root).as_posix()

    def _set_aside(self, name: str, move: Callable[[Path, Path], object]) -> str:
        """Move a folder, pipe or device, or a file without a look. After a crash the next try moves it."""
        source, target = self._path(name), self.quarantine_root / f"{name}.{secrets.token_hex(16)}"
        with self._translated(name):
            DiskBlobs(self.quarantine_root)._make_durable(target.parent)
            move(source, target)
            sync_folder(target.parent)
            sync_folder(source.parent)
        return target.relative_to(self.quarantine_root).as_posix()

    def sweep(self) -> int:
        """Remove temporary files that a crash left where O_TMPFILE is missing. Call it alone, at start."""
        with self._translated(""):
            left = list(self.root.glob(f"{TEMPORARY}*"))
            for path in left:
                path.unlink(missing_ok=True)
            return len(left)

    def _from_disk(self, name: str, take: Callable[[int], T]) -> T | None:
        with self._translated(name):
            file = self._opened(name, direct_io.open_file)
            if file is None:
                return None
            try:
                return take(file)
            finally:
                os.close(file)

    def _opened(self, name: str, open_file: Callable[[Path, int], int]) -> int | None:
        """Return the descriptor of a regular file; None: there is no file."""
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe would wait
        try:
            file = open_file(self._path(name), flags)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise Unavailable(f"{self._path(name)} is not a regular file", code=NO_FILE, hint="move it away")
        return file

    def _link_unnamed(self, name: str, file: int) -> Literal["created", "exists"]:
        return self._link(name, f"/proc/self/fd/{file}")

    def _link(self, name: str, file: str) -> Literal["created", "exists"]:
        """Give a durable file its name, unless the name is taken."""
        path = self._path(name)
        with self._translated(name):
            self._make_durable(path.parent)
            with opened_folder(path.parent) as directory:
                try:
                    # linkat follows /proc/self/fd only when it is given a directory.
                    os.link(file, path.name, src_dir_fd=directory, dst_dir_fd=directory)
                    return "created"
                except FileExistsError:
                    return "exists"
                finally:
                    os.fsync(directory)  # also for the file of another writer

    def _translated(self, name: str) -> contextlib.AbstractContextManager[None]:
        return translated(self.root / name, self._area)

    def _path(self, name: str) -> Path:
        if NAME.fullmatch(name) is None:
            raise Misuse(f"blob name {name[:120]!r} is not allowed", code="blobs.name")
        return self.root / name

    def _make_durable(self, directory: Path) -> None:
        """Make the folder and its parents durable.

        Another process may have made one a moment ago without syncing its name yet. So each process syncs
        each folder once, up to the first one that it has synced already.
        """
        if directory in self._named and directory.is_dir():
            return
        if directory != self.root:
            self._make_durable(directory.parent)
        directory.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        sync_folder(directory.parent)
        if len(self._named) >= NAMED_KEPT:
            self._named.clear()
        self._named.add(directory)

    def _write(self, path: Path, directory: int, data: bytes | bytearray | memoryview) -> bool:
        """Write, sync and link; False: the name was taken meanwhile."""
        if self._tmpfile:
            try:
                file = direct_io.open_file(".", os.O_TMPFILE | os.O_WRONLY, FILE_MODE, directory)
            except OSError as error:
                if error.errno not in NO_TMPFILE:
                    raise
                self._tmpfile = False
        if not self._tmpfile:
            return self._write_named(path.name, directory, data)
        try:
            direct_io.write_all(file, data)
            try:
                # linkat follows /proc/self/fd only when it is given a directory.
                os.link(f"/proc/self/fd/{file}", path.name, src_dir_fd=directory, dst_dir_fd=directory)
            except FileExistsError:
                return False
            return True
        finally:
            os.close(file)

    def _write_named(self, name: str, directory: int, data: bytes | bytearray | memoryview) -> bool:
        temporary = self.root / f"{TEMPORARY}{secrets.token_hex(8)}"
        file = direct_io.open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
        try:
            direct_io.write_all(file, data)
            try:
                os.link(temporary, name, dst_dir_fd=directory)
            except FileExistsError:
                return False
            return True
        finally:
            os.close(file)
            temporary.unlink()


def _nothing() -> None:
    """An unnamed file goes with its descriptor."""


def _present(name: str, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _files(top: Path, begin: str) -> Iterator[Path]:
    """Yield the files below `top`; skip folders right there with another beginning."""
    for directory, folders, names in os.walk(top):
        if directory == str(top):
            folders[:] = [folder for folder in folders if folder.startswith(begin)]
        for name in names:
            if not name.startswith("."):
                yield Path(directory, name)
