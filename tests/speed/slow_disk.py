"""Runs a command as on a disk whose every sync takes SYNC_US microseconds longer: `lucid bench` by default.

    just bench-slow-disk 2000 --sessions 300 --chunk-size 1MiB
    python -m tests.speed.slow_disk 2000 just bench-pair ../before --sessions 300

1. strace delays fsync and fdatasync of the command and of all its processes. It traps nothing else: the rest
   costs as much as without it. Syncs of several files wait side by side, as on a disk with a queue.
2. It first prints how many syncs a second one file and eight files reach: two figures that name a disk.
3. nats-server syncs the blocks of its streams with fsync. It writes small state files with O_SYNC. That is
   not delayed, but the fsync of their folder, which follows, is.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PROBE_S = 2.0
PROBE = "--probe"
BLOCK = bytes(4096)


def slowed(sync_us: int) -> tuple[str, ...]:
    """The beginning of a command line that delays every sync of the rest."""
    strace = shutil.which("strace")
    if strace is None:
        sys.exit("strace is missing, which delays the syncs; install it: apt-get install strace")
    calls = "fsync,fdatasync"
    trapped = ("-f", "--seccomp-bpf", "-qq", "-o", os.devnull, "-e", f"trace={calls}")
    return strace, *trapped, "-e", f"inject={calls}:delay_exit={sync_us}"


def syncs_a_second(folder: Path, files: int) -> float:
    """How often so many files, each with a writer of its own, are synced."""
    end_s = time.monotonic() + PROBE_S

    def write_until_the_end(path: Path) -> int:
        synced = 0
        with path.open("wb", buffering=0) as file:
            while time.monotonic() < end_s:
                file.write(BLOCK)
                os.fsync(file.fileno())
                synced += 1
        return synced

    with ThreadPoolExecutor(files) as pool:
        return sum(pool.map(write_until_the_end, (folder / f"probe-{n}" for n in range(files)))) / PROBE_S


def probe(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    one, eight = (syncs_a_second(folder, files) for files in (1, 8))
    for path in folder.glob("probe-*"):
        path.unlink()
    print(f"this disk, slowed: {one:,.0f} syncs/s of one file, {eight:,.0f} of eight files", file=sys.stderr)


def main(sync_us: int, command: list[str]) -> int:
    """The exit status of the command."""
    begin = slowed(sync_us)
    with tempfile.TemporaryDirectory(prefix="lucid-bench-") as folder:
        environment = {"LUCID_DATA": folder, **os.environ}
        for words in ([sys.executable, __file__, PROBE, environment["LUCID_DATA"]], command):
            status = subprocess.run([*begin, *words], env=environment).returncode
            if status:
                break
    return status


if __name__ == "__main__":
    if sys.argv[1] == PROBE:
        probe(Path(sys.argv[2]))
    else:
        sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
