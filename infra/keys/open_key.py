"""A key file that was read: what it held, and whether it still stands."""

import os


class OpenKey:
    """A key file that was read, and whether it still stands. The open file tells: no disk is asked."""

    def __init__(self, file: int, data: bytes) -> None:
        self._file, self.data = file, data

    def stands(self) -> bool:
        status = os.fstat(self._file)
        return status.st_size > 0 and status.st_nlink > 0

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
