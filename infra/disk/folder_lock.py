"""Locks a folder for one process.

1. The lock (flock) lies on the folder itself, so no file in it can be removed to get a second lock.
2. The kernel lets go of it when the last process that holds the descriptor ends, however it ends.
3. A folder that was replaced between opening and locking is not ours: the new one of that name is tried.
"""

import errno
import fcntl
import os
from pathlib import Path

from schemas.errors import Misuse

NO_LOCKS = (errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
"""Of an OSError: this file system locks no folders. Network file systems give the first one."""


def lock_folder(path: Path) -> int:
    """Return a descriptor that holds the folder, until it is closed wherever it was inherited.

    Raises BlockingIOError (another one holds it), Misuse (config.path: its file system knows no locks).
    """
    while True:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if names(path, fd):
                return fd
        except BlockingIOError:
            os.close(fd)
            raise
        except OSError as error:
            os.close(fd)
            if error.errno not in NO_LOCKS:
                raise
            raise Misuse(
                f"{path} cannot be locked: its file system knows no locks for folders",
                code="config.path",
                hint="use a folder on a disk of this machine",
            ) from None
        os.close(fd)


def is_locked(path: Path) -> bool:
    """Whether some process holds the folder or file; False: it is not there, or may not be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def names(path: Path, fd: int) -> bool:
    """Whether the path still leads to what the descriptor has open."""
    try:
        there, held = os.stat(path), os.fstat(fd)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)
