"""Asks a disk whether a folder takes another file: writes one without a name, and looks at the free space."""

import shutil
import tempfile
from pathlib import Path

from schemas.errors import FULL_ERRNOS, NoSpace, Unavailable
from schemas.format.chunk_header import MAX_SEALED

PROBE_BYTES = 4096
FREE_LEAST_BYTES = 4 * MAX_SEALED
"""Space for the chunks that are under way in one worker."""


def check_writable(folder: Path, free_least: int = FREE_LEAST_BYTES) -> None:
    """Return if the folder takes files. It is not made here. Blocks.

    Raises Unavailable (disk.unwritable), NoSpace (disk.full).
    """
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            file.write(bytes(PROBE_BYTES))
        free = shutil.disk_usage(folder).free
    except OSError as error:
        if error.errno in FULL_ERRNOS:
            raise NoSpace(f"{folder} is full", code="disk.full", hint="free some space") from None
        raise Unavailable(f"{folder} cannot be written: {error.strerror}", code="disk.unwritable") from None
    if free < free_least:
        raise NoSpace(
            f"{folder} has {free} bytes free, and {free_least} are the least",
            code="disk.full",
            hint="free some space",
        )
