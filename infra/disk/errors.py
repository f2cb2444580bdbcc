"""Translates disk errors into ours: the path, the reason, the cure.

    no space left             NoSpace      <area>.space
    mounted read-only         Unavailable  <area>.read_only
    no permission             Unavailable  <area>.access
    anything else             Unavailable  <area>.io

All of them may pass, so callers that can wait retry.
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
    """Translate each OSError of the block, which works on `place`."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, place, area) from error


def disk_error(error: OSError, place: Path, area: Area) -> LucidError:
    """Return our error for the caller of a driver."""
    if area == "keys":
        return _error(error, place, "keys.space", "keys.read_only", "keys.access", "keys.io")
    return _error(error, place, "blobs.space", "blobs.read_only", "blobs.access", "blobs.io")


def _error(error: OSError, place: Path, space: str, read_only: str, access: str, io: str) -> LucidError:
    if error.errno in FULL_ERRNOS:
        return NoSpace(f"{place}: no space left on its disk", code=space, hint="free some space on that disk")
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
        hint="check that disk; the kernel's log (dmesg) has details",
    )
