"""Owns files and folders that people find: whole under their name, or not there at all.

    folder   mkdir <temporary> → files, each fsynced → fsync folders → rename → fsync parent
    file     create <temporary> → write → fsync → link or rename → fsync parent

1. What is made lies beside its place until it is whole; a failure removes it, a crash leaves a name that
   begins with a dot and is never read.
2. Nothing is overwritten unless the caller says so.
3. A full disk is NoSpace (export.space); other failures of the file system are Unavailable (export.io).
"""

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from schemas.errors import FULL, LucidError, Misuse, NoSpace, Unavailable
from schemas.format.digest import Buffer


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `target` when the block ends well. Raises Misuse (export.exists)."""
    target = absolute(target)
    with _translated(target):
        if os.path.lexists(target) and not _is_empty_folder(target):
            raise _exists(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(target)
        temporary.mkdir(mode=0o700)
        try:
            yield temporary
            for folder, _, _ in os.walk(temporary):
                _sync_folder(Path(folder))
            try:
                temporary.rename(target)  # an empty folder of that name gives way, a filled one does not
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise _exists(target) from None
                raise
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _sync_folder(target.parent)


@contextlib.contextmanager
def new_file(target: Path, *, replace: bool = False) -> Iterator[BinaryIO]:
    """A file to write, which becomes `target` when the block ends well. Raises Misuse (export.exists)."""
    target = absolute(target)
    if os.path.lexists(target) and not replace:
        raise _exists(target)
    with _translated(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(target)
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if replace:
                temporary.replace(target)
            else:
                os.link(temporary, target)
        except FileExistsError:
            raise _exists(target) from None
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(target.parent)


def absolute(target: Path) -> Path:
    """The whole path. Raises Unavailable (export.io): the folder we are in was removed."""
    with _translated(target):
        return target.absolute()


def write_file(path: Path, data: Buffer) -> int:
    """Write a file inside a new folder, durably; how many bytes."""
    path.parent.mkdir(exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        size = file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return size


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}")


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _exists(target: Path) -> Misuse:
    return Misuse(
        f"{target} is there already, and nothing is overwritten",
        code="export.exists",
        hint="name another place, or move it away",
    )


@contextlib.contextmanager
def _translated(target: Path) -> Iterator[None]:
    try:
        yield
    except LucidError:
        raise
    except OSError as error:
        why = error.strerror or type(error).__name__
        if error.errno in FULL:
            raise NoSpace(f"{target} does not fit on its disk: {why}", code="export.space") from None
        raise Unavailable(f"{target} cannot be written: {why}", code="export.io") from None
