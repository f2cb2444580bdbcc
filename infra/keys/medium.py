"""Identifies the medium of a file, and tells whether overwriting there removes the old bytes from the disk.

1. Two file systems write a block in place: ext4 without data in its journal, and xfs. For every other one
   (btrfs, zfs, overlay, tmpfs, network) it returns why overwriting proves nothing.
2. The layers below count too: flash, thin volumes, volumes with snapshots and zfs volumes keep old blocks.
3. An unknown layer is no proof. docs/keys.md names the layers that no program can see: a hypervisor's
   snapshots, a disk that claims to rotate.

Source: proc(5) mountinfo and fdinfo, Documentation/filesystems/ext4, Documentation/ABI/testing/sysfs-block.
"""

import fcntl
import os
import re
import struct
from pathlib import Path
from typing import NamedTuple

NETWORK = re.compile(
    r"nfs4?|cifs|smb3?|smbfs|9p|afs|ceph|coda|ncpfs|lustre|ocfs2|gfs2?|beegfs|orangefs|virtiofs|vboxsf|davfs2?"
    r"|(fuse\.)?(glusterfs|sshfs|s3fs|rclone|goofys|ceph(-fuse)?|smbnetfs|curlftpfs|juicefs|mfs|davfs2?)"
)
"""File systems whose bytes lie on other machines, or are shared with them."""
DEVICE = re.compile(r"(sd|vd|hd|xvd|nvme|md|loop)\w+")
"""Block devices that write a block in place; device-mapper ones are checked layer by layer."""
FS_IOC_GETFLAGS, JOURNAL_DATA = 0x80086601, 0x4000


class Medium(NamedTuple):
    """The medium of a file."""

    kind: str
    """The file system, as the kernel names it; empty: unknown."""
    unproven: str
    """Why overwriting proves nothing here; empty: it is proof."""

    @property
    def is_network(self) -> bool:
        return NETWORK.fullmatch(self.kind) is not None


class Mount(NamedTuple):
    """The parts of a mountinfo line that matter here."""

    device: str
    kind: str
    options: tuple[str, ...]


def medium(file: int) -> Medium:
    """Return the medium of an open file or folder. Raises nothing: an unreadable one is unknown."""
    try:
        fdinfo = Path(f"/proc/self/fdinfo/{file}").read_text()
        mount = find_mount(Path("/proc/self/mountinfo").read_text(errors="replace"), fdinfo)
    except OSError:
        mount = None
    if mount is None:
        return Medium("", "its file system is unknown")
    try:
        return Medium(mount.kind, _file_system(file, mount) or _device(mount.device))
    except OSError as error:
        return Medium(mount.kind, f"its disk is unknown: {error.strerror}")


def disks(path: Path) -> frozenset[str]:
    """Return the disks below a folder; if none is visible, the number of its file system. Raises OSError."""
    device = os.stat(path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    block = Path(f"/sys/dev/block/{number}")
    return frozenset(_disks(Path(os.path.realpath(block)))) if block.exists() else frozenset({number})


def _disks(device: Path) -> set[str]:
    whole = device.parent if (device / "partition").exists() else device
    below = whole / "slaves"
    lower = [Path(os.path.realpath(one)) for one in below.iterdir()] if below.exists() else []
    return set().union(*map(_disks, lower)) if lower else {whole.name}


def find_mount(mountinfo: str, fdinfo: str) -> Mount | None:
    """Find the mount of an open file by its id: paths and devices may be mounted twice."""
    wanted = re.search(r"^mnt_id:\s*(\d+)$", fdinfo, re.MULTILINE)
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        mount, kind = before.split(" "), after.split(" ")
        if wanted and len(mount) > 2 and len(kind) > 2 and mount[0] == wanted[1]:
            return Mount(mount[2], kind[0], tuple(kind[-1].split(",")))
    return None


def _file_system(file: int, mount: Mount) -> str:
    if mount.kind not in ("ext4", "xfs"):
        return f"{mount.kind} keeps old blocks, or has no disk"
    (flags,) = struct.unpack("=l", fcntl.ioctl(file, FS_IOC_GETFLAGS, bytes(struct.calcsize("=l"))))
    if mount.kind == "ext4":
        # mountinfo omits the defaults of a file system, and data=journal can be a default
        name = os.path.basename(os.path.realpath(f"/sys/dev/block/{mount.device}"))
        options = Path(f"/proc/fs/ext4/{name}/options").read_text().split()
        if "data=journal" in (*options, *mount.options) or flags & JOURNAL_DATA:
            return "ext4 writes data into its journal"
    return ""


def _device(number: str) -> str:
    """Return why a block device keeps old blocks; empty: it does not. number: major:minor."""
    device = Path(os.path.realpath(f"/sys/dev/block/{number}"))
    whole = device.parent if (device / "partition").exists() else device
    if (whole / "queue" / "rotational").read_text().strip() != "1":
        return f"{device.name} is flash, which writes to other blocks"
    if (whole / "dm").exists():
        return _mapped(whole)
    return "" if DEVICE.fullmatch(device.name) else f"{device.name} may keep old blocks"


def _mapped(device: Path) -> str:
    """Check a device-mapper volume. On other volumes lie encrypted ones, or thin ones and snapshots."""
    is_crypt = (device / "dm" / "uuid").read_text().startswith("CRYPT-")
    for below in sorted((device / "slaves").iterdir()):
        lower = Path(os.path.realpath(below))
        if (lower / "dm").exists():
            why = _mapped(lower) if is_crypt else f"{device.name} is thin, or has snapshots"
        else:
            why = "" if DEVICE.fullmatch(lower.name) else f"{lower.name} may keep old blocks"
        if why:
            return why
    return ""
