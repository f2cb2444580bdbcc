"""A file system of our own: small, and with an image that can be searched block by block."""

import contextlib
import lzma
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

    def fill_up(self) -> None:
        """Take all of it, to the last block."""
        self.fill(leave=min(self.free(), 1 << 20))
        with contextlib.suppress(OSError), self.ballast.open("ab", buffering=0) as file:
            while file.write(bytes(1024)):
                pass

    def empty(self) -> None:
        self.ballast.unlink()


@contextmanager
def small_disk(folder: Path, size: int, *kinds: str) -> Iterator[Disk | None]:
    """A mounted file system of so many bytes, of the first of these kinds that can be had; None: of none.

    ext4 lies in a file, tmpfs in memory. ext4-journal writes data into its journal, too, by a default that no
    mount option tells. xfs and btrfs are small ones that were made before, whatever `size` is.
    Mounting is root's right.
    """
    place, image = folder / "disk", folder / "image"
    place.mkdir()
    kind = next(
        (kind for kind in kinds if _made(kind, image, size) and _mounted(kind, image, place, size)), None
    )
    disk = Disk(place, image if kind != "tmpfs" else None) if kind else None
    try:
        yield disk
    finally:
        if disk is not None:
            subprocess.run(["umount", str(place)], check=True)
        image.unlink()


def _made(kind: str, image: Path, size: int) -> bool:
    packed = Path(__file__).with_name(f"{kind}.img.xz")
    if packed.exists():
        image.write_bytes(lzma.decompress(packed.read_bytes()))
        return True
    with image.open("wb") as file:
        file.truncate(size)  # sparse: only what is written takes room
    commands = [["mkfs.ext4", "-q", "-m", "0", "-F", str(image)]] if kind.startswith("ext4") else []
    if kind == "ext4-journal":
        commands.append(["tune2fs", "-o", "journal_data", str(image)])
    return _all_run(commands)


def _mounted(kind: str, image: Path, place: Path, size: int) -> bool:
    if kind == "tmpfs":
        return _all_run([["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]])
    if not _all_run(
        [["mount", "-t", kind.partition("-")[0], "-o", "loop,nodiscard", str(image), str(place)]]
    ):
        return False
    device = os.stat(place).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    # A loop device says of itself what the disk below it is; tests are of disks that rotate.
    with contextlib.suppress(OSError):
        Path(f"/sys/dev/block/{number}/queue/rotational").write_text("1")
    return True


def _all_run(commands: list[list[str]]) -> bool:
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        for command in commands:
            subprocess.run(command, check=True, capture_output=True)
        return True
    return False
