"""A file system of our own: small, and with an image that can be searched block by block."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Disk:
    """Where it is mounted, and the file that holds its blocks (None: it lies in memory)."""

    path: Path
    image: Path | None

    def free(self) -> int:
        held = os.statvfs(self.path)
        return held.f_bavail * held.f_frsize

    @property
    def ballast(self) -> Path:
        return self.path / "ballast"

    def fill(self, leave: int) -> None:
        """Take all of it but `leave` bytes."""
        with self.ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, self.free() - leave)

    def empty(self) -> None:
        self.ballast.unlink()


@contextmanager
def small_disk(folder: Path, size: int, *kinds: str) -> Iterator[Disk | None]:
    """A mounted file system of so many bytes, of the first of these kinds that can be had; None: of none.

    ext4 lies in a file, tmpfs in memory. Mounting is root's right.
    """
    place, image = folder / "disk", folder / "image"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(size)  # sparse: only what is written takes room
    commands = {
        "ext4": [
            ["mkfs.ext4", "-q", "-m", "0", "-F", str(image)],
            ["mount", "-o", "loop,nodiscard", str(image), str(place)],
        ],
        "tmpfs": [["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]],
    }
    kind = next((kind for kind in kinds if _all_run(commands[kind])), None)
    disk = Disk(place, image if kind == "ext4" else None) if kind else None
    try:
        yield disk
    finally:
        if disk is not None:
            subprocess.run(["umount", str(place)], check=True)
        image.unlink()


def _all_run(commands: list[list[str]]) -> bool:
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        for command in commands:
            subprocess.run(command, check=True, capture_output=True)
        return True
    return False
