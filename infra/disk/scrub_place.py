"""Keeps the state of the scrub in `scrub/state.json` of a data folder; a lock on `scrub/` makes its owner."""

import os
from pathlib import Path

from infra.disk.durable import FOLDER_MODE, write_private
from infra.disk.folder_lock import lock_folder
from schemas.errors import FULL_ERRNOS, NoSpace, Unavailable

STATE = "state.json"


class DiskScrubPlace:
    """The port ScrubPlace."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, -1

    def take(self) -> bool:
        if self._lock >= 0:
            return True
        try:
            self._folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            self._lock = lock_folder(self._folder)
        except BlockingIOError:
            return False
        except OSError as error:
            raise _failed(self._folder, error) from error
        return True

    def read(self) -> bytes | None:
        try:
            return (self._folder / STATE).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failed(self._folder / STATE, error) from error

    def write(self, state: bytes) -> None:
        try:
            write_private(self._folder / STATE, state)
        except OSError as error:
            raise _failed(self._folder / STATE, error) from error

    def release(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _failed(path: Path, error: OSError) -> Unavailable | NoSpace:
    kind = NoSpace if error.errno in FULL_ERRNOS else Unavailable
    return kind(
        f"{path} cannot be used: {error.strerror}",
        code="scrub.state",
        hint="free space, or give the folder back to the user of this program",
        place=str(path),
    )
