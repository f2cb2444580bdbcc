"""Tells what a file lies on, and whether overwriting it there takes the old bytes off the disk.

1. It knows two file systems that write a block where it was: ext4 whose journal takes no data, and xfs. Of
   every other one (btrfs, zfs, overlay, tmpfs, network) it says why overwriting proves nothing.
2. What lies below the file system counts too: flash, thin volumes, volumes with snapshots and zfs volumes
   keep old blocks.
3. What it cannot see is no proof: then the answer is "unknown". What no program can see (a hypervisor's
   snapshots, a disk that claims to rotate) is named in docs/keys.md.

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
"""Block devices that write a block where it was; device-mapper ones are looked into."""
FS_IOC_GETFLAGS, JOURNAL_DATA = 0x80086601, 0x4000


class Medium(NamedTuple):
    """What a file lies on."""

    kind: str
    """The file system, as the kernel names it; empty: unknown."""
    unproven: str
    """Why overwriting proves nothing here; empty: it does."""

    @property
    def is_network(self) -> bool:
        return NETWORK.fullmatch(self.kind) is not None


class Mount(NamedTuple):
    """A line of mountinfo, as far as it matters here."""

    device: str
    kind: str
    options: tuple[str, ...]


def medium(file: int) -> Medium:
    """What an open file or folder lies on. Raises nothing: what cannot be read is unknown."""
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
    """The disks that a folder lies on; where none is seen, the number of its file system. Raises OSError."""
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
    """The mount that an open file belongs to: by its id, since paths and devices may be mounted twice."""
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
        # mountinfo leaves out what is a default of this file system, and data=journal can be one
        name = os.path.basename(os.path.realpath(f"/sys/dev/block/{mount.device}"))
        options = Path(f"/proc/fs/ext4/{name}/options").read_text().split()
        if "data=journal" in (*options, *mount.options) or flags & JOURNAL_DATA:
            return "ext4 writes data into its journal"
    return ""


def _device(number: str) -> str:
    """Why a block device keeps old blocks; empty: it does not. number: major:minor."""
    device = Path(os.path.realpath(f"/sys/dev/block/{number}"))
    whole = device.parent if (device / "partition").exists() else device
    if (whole / "queue" / "rotational").read_text().strip() != "1":
        return f"{device.name} is flash, which writes elsewhere"
    if (whole / "dm").exists():
        return _mapped(whole)
    return "" if DEVICE.fullmatch(device.name) else f"{device.name} may keep old blocks"


def _mapped(device: Path) -> str:
    """A volume straight on disks, or an encrypted one; pools, snapshots and their origins lie on volumes."""
    is_crypt = (device / "dm" / "uuid").read_text().startswith("CRYPT-")
    for below in sorted((device / "slaves").iterdir()):
        lower = Path(os.path.realpath(below))
        if (lower / "dm").exists():
            said = _mapped(lower) if is_crypt else f"{device.name} is thin, or has snapshots"
        else:
            said = "" if DEVICE.fullmatch(lower.name) else f"{lower.name} may keep old blocks"
        if said:
            return said
    return ""
