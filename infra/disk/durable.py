"""Makes files and folders durable: whole under their name, or not there at all.

    new file      open <temporary> → write → fsync(file) → link   → fsync(folder)
    replacement   open <temporary> → write → fsync(file) → rename → fsync(folder)
    new folder    mkdir <temporary> → its files, each fsynced → fsync its folders → rename → fsync(parent)

1. A temporary name begins with a dot and lies beside the place. A failure removes it; a crash leaves it, and
   nothing reads it.
2. Nothing is overwritten unless the caller says so.
3. `new_file` and `new_folder` serve exports: a full disk is NoSpace (export.space), other failures of the
   file system are Unavailable (export.io). All other functions raise OSError.
4. Sealed chunks are written past the page cache instead (infra.blobs.disk).
"""

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from schemas.errors import FULL_ERRNOS, LucidError, Misuse, NoSpace, Unavailable
from schemas.format.digest import Buffer

FILE_MODE, FOLDER_MODE = 0o600, 0o700
NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)
"""The answers of file systems and kernels without O_TMPFILE."""


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a folder to fill; it becomes `target` when the block ends well. Raises Misuse (export.exists)."""
    target = absolute(target)
    with _export_errors(target):
        if os.path.lexists(target) and not _is_empty_folder(target):
            raise _exists(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(target)
        temporary.mkdir(mode=FOLDER_MODE)
        try:
            yield temporary
            for folder, _, _ in os.walk(temporary):
                sync_folder(Path(folder))
            try:
                temporary.rename(target)  # replaces an empty folder, never a filled one
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise _exists(target) from None
                raise
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_folder(target.parent)


@contextlib.contextmanager
def new_file(target: Path, *, replace: bool = False) -> Iterator[BinaryIO]:
    """Yield a file to write; it becomes `target` when the block ends well. Raises Misuse (export.exists)."""
    target = absolute(target)
    if os.path.lexists(target) and not replace:
        raise _exists(target)
    with _export_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with _named_when_whole(target, replace=replace) as file:
                yield file
        except FileExistsError:
            raise _exists(target) from None


def absolute(target: Path) -> Path:
    """Return the absolute path. Raises Unavailable (export.io): the current folder was removed."""
    with _export_errors(target):
        return target.absolute()


def write_file(path: Path, data: Buffer) -> int:
    """Write a file inside a new folder, durably; return its bytes."""
    path.parent.mkdir(exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "wb") as file:
        size = file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return size


def write_private(path: Path, data: Buffer) -> None:
    """Replace a file, or make it; only its owner can read it."""
    with _named_when_whole(path, replace=True) as file:
        file.write(data)


def write_once(path: Path, data: Buffer) -> bool:
    """Make a file that only its owner can read, unless its name is taken. Returns whether it was made."""
    try:
        with _named_when_whole(path, replace=False) as file:
            file.write(data)
    except FileExistsError:
        return False
    return True


def write_locked(path: Path, data: Buffer) -> int:
    """Replace a file that is locked (flock) before it has its name; return the descriptor with the lock."""
    with contextlib.ExitStack() as on_failure:
        with _named_when_whole(path, replace=True) as file:
            file.write(data)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.dup(file.fileno())
            on_failure.callback(os.close, held)
        on_failure.pop_all()
    return held


@contextlib.contextmanager
def opened_folder(path: Path) -> Iterator[int]:
    """Yield a descriptor of the folder."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield folder
    finally:
        os.close(folder)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable: without it a crash may bring the old ones back."""
    with opened_folder(path) as folder:
        os.fsync(folder)


@contextlib.contextmanager
def _named_when_whole(path: Path, *, replace: bool) -> Iterator[BinaryIO]:
    """Yield a file to write; it is fsynced and gets its name when the block ends well.

    Raises FileExistsError: the name is taken, and may not be replaced.
    """
    temporary = _beside(path)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(temporary, flags, FILE_MODE), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if replace:
            temporary.replace(path)
        else:
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}")


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())


def _exists(target: Path) -> Misuse:
    return Misuse(
        f"{target} is there already, and nothing is overwritten",
        code="export.exists",
        hint="name another place, or move it away",
    )


@contextlib.contextmanager
def _export_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except LucidError:
        raise
    except OSError as error:
        why = error.strerror or type(error).__name__
        if error.errno in FULL_ERRNOS:
            raise NoSpace(f"{target} does not fit on its disk: {why}", code="export.space") from None
        raise Unavailable(f"{target} cannot be written: {why}", code="export.io") from None
