"""Says what it means when the disk refuses something: which place, what is the matter, and what cures it.

    no room left              NoSpace      <area>.space
    mounted read-only         Unavailable  <area>.read_only
    no right to               Unavailable  <area>.access
    anything else             Unavailable  <area>.io

All of them may pass, so whoever can wait tries again.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from schemas.errors import FULL_ERRNOS, LucidError, NoSpace, Unavailable

Area = Literal["blobs", "keys"]
"""The first word of the codes."""
RIGHTS = (errno.EACCES, errno.EPERM)


@contextmanager
def translated(place: Path, area: Area) -> Iterator[None]:
    """Around calls on `place`."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, place, area) from error


def disk_error(error: OSError, place: Path, area: Area) -> LucidError:
    """The error that the caller of a driver sees."""
    if area == "keys":
        return _error(error, place, "keys.space", "keys.read_only", "keys.access", "keys.io")
    return _error(error, place, "blobs.space", "blobs.read_only", "blobs.access", "blobs.io")


def _error(error: OSError, place: Path, space: str, read_only: str, access: str, io: str) -> LucidError:
    if error.errno in FULL_ERRNOS:
        return NoSpace(f"{place}: no room on its disk", code=space, hint="free some space on that disk")
    if error.errno == errno.EROFS:
        return Unavailable(
            f"{place}: its disk is mounted read-only",
            code=read_only,
            hint="read the kernel's log (dmesg) for the reason, then mount it read-write",
        )
    if error.errno in RIGHTS:
        return Unavailable(
            f"{place}: {error.strerror}",
            code=access,
            hint="let the user that the services run as read and write there",
        )
    return Unavailable(
        f"{place}: {error.strerror or error}",
        code=io,
        hint="look after that disk: the kernel's log (dmesg) says more",
    )
