"""Finds swap space that could reveal key material after a power failure.

Swap in memory (zram) or on an encrypted volume (dm-crypt) is safe. A device of unknown kind counts as plain.

Source: proc(5) swaps.
"""

import os
from pathlib import Path

SWAPS, BLOCKS = Path("/proc/swaps"), Path("/sys/class/block")


def plain_swap(swaps: Path = SWAPS, blocks: Path = BLOCKS) -> list[str]:
    """Return the names of plain swap files and devices; empty: none, or unknown."""
    try:
        lines = swaps.read_text(errors="replace").splitlines()[1:]
    except OSError:
        return []
    names = [line.split()[0] for line in lines if line.strip()]
    return [name for name in names if not _is_safe(Path(os.path.realpath(name)).name, blocks)]


def _is_safe(device: str, blocks: Path) -> bool:
    if device.startswith("zram"):
        return True
    try:
        return (blocks / device / "dm" / "uuid").read_text().startswith("CRYPT-")
    except OSError:
        return False
