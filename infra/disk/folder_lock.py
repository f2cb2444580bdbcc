"""Locks a folder for one process.

1. The lock (flock) is on the folder itself: removing a file in it gives nobody a second lock.
2. The kernel releases it when the last process that holds the descriptor ends, even if it is killed.
3. If the folder was replaced between open and lock, the new folder of that name is locked instead.
"""

import errno
import fcntl
import os
from pathlib import Path

from schemas.errors import Misuse

NO_LOCKS = (errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
"""The errno of a file system that locks no folders; network file systems give the first one."""


def lock_folder(path: Path) -> int:
    """Return a descriptor that holds the lock until all inherited copies are closed too.

    Raises BlockingIOError: another process holds it; Misuse (config.path): its file system has no locks.
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
                f"{path} cannot be locked: its file system has no locks for folders",
                code="config.path",
                hint="use a folder on a disk of this machine",
            ) from None
        os.close(fd)


def is_locked(path: Path) -> bool:
    """Return whether a process holds the folder or file; False too if it is absent or unreadable."""
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
    """Return whether the path still names the open file or folder."""
    try:
        there, held = os.stat(path), os.fstat(fd)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)
