"""Measures CPU seconds and peak memory of processes, and the CPU share of all others meanwhile.

1. Peak memory is the kernel's mark of the largest resident set (VmHWM); without it, the largest sample.
2. The share of others stands beside every figure: a speed measured beside other work means nothing.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from schemas.errors import Unavailable

SAMPLE_S = 0.1


@dataclass(frozen=True, slots=True)
class Used:
    """The use of one process during the measurement. peak_bytes: since its start."""

    cpu_s: float
    peak_bytes: int


class Neighbours:
    """The CPU time of other processes since this object was made."""

    def __init__(self) -> None:
        self._began_s, self._busy_s = time.monotonic(), _busy_s()

    def share(self, used: Iterable[Used]) -> float:
        """The share of all cores, without `used`: 0 to 1. The kernel's threads count as others."""
        whole_s = (time.monotonic() - self._began_s) * (psutil.cpu_count() or 1)
        others_s = _busy_s() - self._busy_s - sum(one.cpu_s for one in used)
        return min(1.0, max(0.0, others_s / whole_s)) if whole_s else 0.0


class Meter:
    """Measures processes during an `async with` block; afterwards `used`, by name, and `others` are set."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        """Raises Unavailable (bench.gone)."""
        self.used: dict[str, Used] = {}
        self.others = 0.0
        self._neighbours = Neighbours()
        try:
            self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        except psutil.NoSuchProcess as error:
            raise Unavailable(f"a process ended before it was measured: {error}", code="bench.gone") from None
        self._before = dict.fromkeys(pids, 0.0)
        self._seen = dict.fromkeys(pids, 0)

    async def __aenter__(self) -> "Meter":
        self._before = {name: _cpu_s(process) for name, process in self._processes.items()}
        self._neighbours = Neighbours()
        self._sampling = asyncio.create_task(self._sample())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._sampling.cancel()
        for name, process in self._processes.items():
            with contextlib.suppress(psutil.NoSuchProcess):
                peak = _peak_bytes(process.pid) or self._seen[name]
                self.used[name] = Used(_cpu_s(process) - self._before[name], peak)
        self.others = self._neighbours.share(self.used.values())

    async def _sample(self) -> None:
        if all(_peak_bytes(process.pid) for process in self._processes.values()):
            return
        while True:
            for name, process in self._processes.items():
                with contextlib.suppress(psutil.NoSuchProcess):
                    self._seen[name] = max(self._seen[name], process.memory_info().rss)
            await asyncio.sleep(SAMPLE_S)


def _busy_s() -> float:
    """CPU seconds of all cores since the machine was started."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _peak_bytes(pid: int) -> int:
    """VmHWM; 0 without one."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    return 0
