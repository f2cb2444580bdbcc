"""One stored file that is read in pieces, and one new file that grows in pieces.

    new file   openat(<root>, O_TMPFILE) → write… → fsync(file) → linkat(name) → fsync(<dir>)

1. Memory holds one piece at a time.
2. A new file has no name before `keep`. A crash before it leaves nothing; where O_TMPFILE is missing, it
   leaves a temporary file that the next start removes (`DiskBlobs.sweep`).
3. After a failed fsync the state of the file is unknown: the caller closes it, and it never gets a name.
"""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal

from infra.blobs import direct_io
from schemas.format.digest import Buffer, Content, content

Translated = Callable[[], AbstractContextManager[None]]
"""Makes a context that translates OSError into our errors."""


class OpenDiskBlob:
    """A stored file, open for reading; OpenBlob of schemas.ports."""

    def __init__(self, file: int, translated: Translated) -> None:
        self._file, self._translated = file, translated
        found = os.fstat(file)
        self.size = found.st_size
        self.stamp = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    def content(self) -> Content:
        with self._translated():
            os.lseek(self._file, 0, os.SEEK_SET)
            return content(direct_io.pieces(self._file))

    def read_at(self, at: int, count: int) -> bytes:
        with self._translated():
            return os.pread(self._file, count, at)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class NewDiskBlob:
    """A file that grows; NewBlob of schemas.ports. link: gives it its name; drop: removes a temporary one."""

    def __init__(
        self,
        file: int,
        translated: Translated,
        link: Callable[[str, int], Literal["created", "exists"]],
        drop: Callable[[], None],
    ) -> None:
        self._file, self._translated, self._link, self._drop = file, translated, link, drop

    def write(self, piece: Buffer) -> None:
        with self._translated(), memoryview(piece) as view:
            at = 0
            while at < len(view):
                at += os.write(self._file, view[at:])

    def settle(self) -> Content:
        with self._translated():
            os.fsync(self._file)
            os.lseek(self._file, 0, os.SEEK_SET)
            return content(direct_io.pieces(self._file))

    def read(self) -> bytes:
        with self._translated():
            os.lseek(self._file, 0, os.SEEK_SET)
            return direct_io.read_all(self._file)

    def keep(self, name: str) -> Literal["created", "exists"]:
        return self._link(name, self._file)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            with self._translated():
                self._drop()
