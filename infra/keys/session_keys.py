"""Keeps one small file per session: makes it once, reads it, replaces it, and erases its bytes for good.

    <root>/<2 hex>/<uid>.key            the key file; empty: erased for good, and never made again
    <root>/<2 hex>/.<uid>.<8 hex>       a file that is being made or replaced; after a crash: a leftover

1. Making, replacing and erasing hold an exclusive flock on the folder, reading holds a shared one. So under
   an exclusive lock every leftover there belongs to a dead process.
2. A secret is written only into blocks of a file with a durable name: no power failure leaves it elsewhere.
3. A file keeps a name until its bytes are overwritten: a replaced file has a second name.
4. The folder is synced before a leftover is overwritten: then a crash cannot undo the name that replaced it.
   A leftover that is another name of the key file itself is only unlinked. A doubted one stays, empty, until
   there is a key file that takes its doubt.
5. The mark of a key file (infra.keys.overwriting) stays on the erased file, so a repeated erasure gives the
   same outcome.
6. Calls block: run them in threads. Any number of threads and processes may share one root.
"""

import contextlib
import fcntl
import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from infra.blobs import direct_io
from infra.disk.durable import FILE_MODE, FOLDER_MODE, opened_folder, sync_folder
from infra.disk.errors import translated
from infra.keys.medium import medium
from infra.keys.open_key import OpenKey, open_key, open_key_now
from infra.keys.overwriting import is_doubted, is_marked, mark, overwrite, unmark, write_new
from schemas.errors import LucidError, Misuse
from schemas.ports import Erasure

KEY_FILE = re.compile(r"([0-9a-f]{32})\.key")
LEFTOVER = re.compile(r"\.([0-9a-f]{32})\.[0-9a-f]{8}")
FOLDERS = tuple(f"{number:02x}" for number in range(256))


class DiskKeyFiles:
    """The port KeyFiles, below one folder. Making the object touches nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._is_local = False

    def make(self, uid: bytes, data: bytes) -> bytes:
        return self._make(uid, data, is_new=True)

    def put_back(self, uid: bytes, data: bytes) -> bytes:
        return self._make(uid, data, is_new=False)

    def _make(self, uid: bytes, data: bytes, *, is_new: bool) -> bytes:
        with self._exclusive(uid) as folder:
            name = _name(uid)
            there = _content(folder, name)
            if there is not None:
                os.fsync(folder)  # its maker may have died before: a power failure would remove the name
                return there
            _clear(folder, uid)
            with _or_undone(folder, uid):
                temporary = _write(folder, uid, data, marked=is_new)
                # A crash from here on leaves the whole file, under one name or both.
                os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
                os.fsync(folder)
                os.unlink(temporary, dir_fd=folder)
            _clear(folder, uid)
            return data

    def open(self, uid: bytes) -> OpenKey | None:
        with self._shared(uid) as folder:
            return None if folder is None else open_key(folder, _name(uid))

    def open_now(self, uid: bytes) -> OpenKey | None:
        return open_key_now(self._folder(uid), _name(uid)) if self._is_local else None

    def replace(self, uid: bytes, make: Callable[[bytes], bytes | None]) -> Erasure | None:
        with self._exclusive(uid) as folder:
            name = _name(uid)
            there = _content(folder, name)
            made = make(there) if there else None
            if made is None:
                return None
            _clear(folder, uid)
            with _or_undone(folder, uid):
                with _file(folder, name) as file:
                    temporary, old = _write(folder, uid, made, marked=is_marked(file)), _temporary(uid)
                os.link(name, old, src_dir_fd=folder, dst_dir_fd=folder)
                # A crash before this leaves the new file as leftover, one after it the old file.
                os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            _clear(folder, uid)
            with _file(folder, name) as file:
                return _outcome(file)

    def erase(self, uid: bytes, *, was_made: bool = True) -> Erasure:
        with self._exclusive(uid) as folder:
            _clear(folder, uid)
            is_absent = _content(folder, _name(uid)) is None
            with _file(folder, _name(uid), os.O_CREAT) as file:
                if is_absent and not was_made:
                    mark(file, erased=True)  # no bytes of a key can be here
                elif os.fstat(file).st_size:
                    if overwrite(file) and is_marked(file):
                        mark(file, erased=True)
                    else:
                        unmark(file)
                    # A crash before this leaves a file without a key; the next try overwrites it again.
                    os.ftruncate(file, 0)
                os.fsync(file)
                os.fsync(folder)
                _clear(folder, uid)
                return _outcome(file)

    def mark_proven(self, uid: bytes, data: bytes) -> None:
        with self._exclusive(uid) as folder, _file(folder, _name(uid)) as file:
            _clear(folder, uid)
            if data and direct_io.read_all(file) == data:
                mark(file)

    def mark_unproven(self, uid: bytes) -> None:
        with self._exclusive(uid) as folder, _file(folder, _name(uid)) as file:
            unmark(file)

    def uids(self) -> Iterator[bytes]:
        return (uid for uid, _ in self.states())

    def states(self) -> Iterator[tuple[bytes, bool]]:
        with translated(self.root, "keys"):
            for folder in FOLDERS:
                with contextlib.suppress(FileNotFoundError), os.scandir(self.root / folder) as entries:
                    for entry in sorted(entries, key=lambda entry: entry.name):
                        if match := KEY_FILE.fullmatch(entry.name):
                            yield bytes.fromhex(match[1]), not entry.stat(follow_symlinks=False).st_size

    def sweep(self) -> int:
        cleared = 0
        with translated(self.root, "keys"):
            for name in FOLDERS:
                try:
                    matches = [LEFTOVER.fullmatch(left) for left in os.listdir(self.root / name)]
                except FileNotFoundError:
                    continue
                for uid in {bytes.fromhex(match[1]) for match in matches if match}:
                    with self._exclusive(uid) as folder:
                        cleared += _clear(folder, uid)
        return cleared

    def unproven(self) -> str:
        with translated(self.root, "keys"):
            _make_folder(self.root)
            with opened_folder(self.root) as folder:
                return medium(folder).unproven

    @contextlib.contextmanager
    def _exclusive(self, uid: bytes) -> Iterator[int]:
        """Yield the folder with the session's file, made if need be, under an exclusive lock."""
        path = self._folder(uid)
        with translated(path, "keys"):
            _make_folder(self.root)
            _make_folder(path)
            with opened_folder(path) as folder:
                self._refuse_network(folder)
                fcntl.flock(folder, fcntl.LOCK_EX)
                yield folder

    @contextlib.contextmanager
    def _shared(self, uid: bytes) -> Iterator[int | None]:
        """Yield the folder with the session's file under a shared lock; None: there is none."""
        path = self._folder(uid)
        with translated(path, "keys"), contextlib.ExitStack() as stack:
            try:
                folder = stack.enter_context(opened_folder(path))
            except FileNotFoundError:
                yield None
                return
            self._refuse_network(folder)
            fcntl.flock(folder, fcntl.LOCK_SH)
            yield folder

    def _folder(self, uid: bytes) -> Path:
        return self.root / uid.hex()[:2]

    def _refuse_network(self, folder: int) -> None:
        if not self._is_local and (found := medium(folder)).is_network:
            raise Misuse(
                f"{self.root} lies on {found.kind}; a key on a network file system cannot be erased",
                code="keys.network",
                hint="set KEYS_PATH to a folder on a local disk",
            )
        self._is_local = True


def _write(folder: int, uid: bytes, data: bytes, *, marked: bool) -> str:
    """Write a durable file under a temporary name. marked: no bytes of this key are elsewhere."""
    name = _temporary(uid)
    with _file(folder, name, os.O_CREAT | os.O_EXCL) as file:
        write_new(file, data, folder)
        if marked:
            mark(file)
    return name


def _clear(folder: int, uid: bytes) -> int:
    """Overwrite and unlink the leftovers of this session; return how many there were."""
    left = [name for name in _names(folder) if name.startswith(f".{uid.hex()}.")]
    if not left:
        return 0
    os.fsync(folder)
    with contextlib.ExitStack() as stack:
        live: int | None = None
        with contextlib.suppress(FileNotFoundError):
            live = stack.enter_context(_file(folder, _name(uid)))
        for name in left:
            with _file(folder, name) as file:
                if live is None or not os.path.sameopenfile(file, live):
                    if is_doubted(file) or not overwrite(file):
                        unmark(file if live is None else live)
                    os.ftruncate(file, 0)
                if live is None and is_doubted(file):
                    continue
            os.unlink(name, dir_fd=folder)
    return len(left)


@contextlib.contextmanager
def _or_undone(folder: int, uid: bytes) -> Iterator[None]:
    """On failure remove the half-made file now; if that fails too, the next start does."""
    try:
        yield
    except OSError:
        with contextlib.suppress(OSError, LucidError):
            _clear(folder, uid)
        raise


def _names(folder: int) -> list[str]:
    """List through a new descriptor: on btrfs an older one may miss newer names."""
    again = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        return os.listdir(again)
    finally:
        os.close(again)


def _name(uid: bytes) -> str:
    return f"{uid.hex()}.key"


def _temporary(uid: bytes) -> str:
    return f".{uid.hex()}.{secrets.token_hex(4)}"


def _content(folder: int, name: str) -> bytes | None:
    with contextlib.suppress(FileNotFoundError), _file(folder, name) as file:
        return direct_io.read_all(file)
    return None


def _outcome(file: int) -> Erasure:
    return "overwritten" if is_marked(file) else "unproven"


def _file(folder: int, name: str, flags: int = 0) -> contextlib.AbstractContextManager[int]:
    """Open a key file or leftover, for reading and writing past the cache. Links are not followed."""
    return direct_io.opened_file(name, os.O_RDWR | os.O_NOFOLLOW | flags, FILE_MODE, folder)


def _make_folder(path: Path) -> None:
    """Make a folder, durable on return, also if another process made it a moment ago."""
    try:
        path.mkdir(mode=FOLDER_MODE)
    except FileExistsError:
        return
    sync_folder(path.parent)
