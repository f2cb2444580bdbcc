"""Owns what a process has used: CPU seconds and peak memory, by process id.

Peak memory is the kernel's own mark of the largest resident set; where there is none, the largest that was
seen in samples.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

SAMPLE_S = 0.1


@dataclass(frozen=True, slots=True)
class Used:
    """By one process while it was measured. peak_bytes: since it was started."""

    cpu_s: float
    peak_bytes: int


class Meter:
    """Measures some processes from `async with` to its end. Then `used`, by name."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self.used: dict[str, Used] = {}
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._before = dict.fromkeys(pids, 0.0)
        self._seen = dict.fromkeys(pids, 0)

    async def __aenter__(self) -> "Meter":
        self._before = {name: _cpu_s(process) for name, process in self._processes.items()}
        self._sampling = asyncio.create_task(self._sample())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._sampling.cancel()
        for name, process in self._processes.items():
            with contextlib.suppress(psutil.NoSuchProcess):
                peak = _peak_bytes(process.pid) or self._seen[name]
                self.used[name] = Used(_cpu_s(process) - self._before[name], peak)

    async def _sample(self) -> None:
        if all(_peak_bytes(process.pid) for process in self._processes.values()):
            return
        while True:
            for name, process in self._processes.items():
                with contextlib.suppress(psutil.NoSuchProcess):
                    self._seen[name] = max(self._seen[name], process.memory_info().rss)
            await asyncio.sleep(SAMPLE_S)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _peak_bytes(pid: int) -> int:
    """VmHWM; 0 where the kernel does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    return 0
