"""Owns what a process has used: CPU seconds and peak memory, by process id; and what others took meanwhile.

1. Peak memory is the kernel's own mark of the largest resident set; where there is none, the largest that was
   seen in samples.
2. What others took stands beside every figure: a speed that was measured beside other work is none.
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
    """By one process while it was measured. peak_bytes: since it was started."""

    cpu_s: float
    peak_bytes: int


class Neighbours:
    """What other processes take of all cores, from its making on."""

    def __init__(self) -> None:
        self._began_s, self._busy_s = time.monotonic(), _busy_s()

    def share(self, used: Iterable[Used]) -> float:
        """Of all cores, without `used`: 0 to 1. The kernel's own threads are others, too."""
        whole_s = (time.monotonic() - self._began_s) * (psutil.cpu_count() or 1)
        others_s = _busy_s() - self._busy_s - sum(one.cpu_s for one in used)
        return min(1.0, max(0.0, others_s / whole_s)) if whole_s else 0.0


class Meter:
    """Measures some processes from `async with` to its end. Then `used`, by name, and `others`."""

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
    """CPU seconds that all cores have worked since the machine was started."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _peak_bytes(pid: int) -> int:
    """VmHWM; 0 where the kernel does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    return 0
