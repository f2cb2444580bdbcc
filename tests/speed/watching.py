"""Measures `lucid watch` on a terminal beside many sessions that are not finished: prints one line of JSON.

    python -m tests.speed.watching [SESSIONS [SECONDS]]

1. System, hosts and the watch run in processes of their own. Each session has a host that ticks every 10 s.
2. The same system is measured before without a watch: the difference is the cost of the watch.
3. `first_screen_s` counts from the start of the process, its imports included.
"""

import asyncio
import json
import os
import pty
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from streams.bench.contender import Task
from streams.bench.data import INCOMPRESSIBLE, make_source
from streams.bench.load import SETTLE_S, Load, publishers
from streams.bench.meter import Meter
from streams.bench.pipeline import Running, system
from streams.bench.sessions import WIDE_LIMITS, play_all
from streams.cli.verbs.bench import own_environment
from streams.control.client import call
from streams.roles.drivers import Installation

SESSIONS, SECONDS = 1000, 20.0
HEAD = b"not finished"
"""In the first line of every screen."""


class Watch:
    """A `lucid watch` on a terminal of its own."""

    def __init__(self, up: Running) -> None:
        self.began_s, self.screens, self.first_s = time.monotonic(), 0, 0.0
        self._master, slave = pty.openpty()
        command = [sys.executable, "-P", "-m", "streams.cli.main", "watch"]
        environment = {**up.environment, "TERM": "xterm"}
        self.process = subprocess.Popen(command, env=environment, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        os.set_blocking(self._master, False)

    async def screen(self) -> None:
        """Return at the first screen."""
        while not self.screens:
            await asyncio.sleep(0.01)
            self.read()
        self.first_s = time.monotonic() - self.began_s

    def read(self) -> None:
        try:
            self.screens += os.read(self._master, 1 << 20).count(HEAD)
        except BlockingIOError:
            return

    async def reading(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            self.read()

    async def close(self) -> None:
        self.process.terminate()
        while self.process.poll() is None:
            self.read()
            await asyncio.sleep(0.01)
        os.close(self._master)


@asynccontextmanager
async def watched(up: Running) -> AsyncIterator[Watch]:
    watch = Watch(up)
    reading = None
    try:
        await watch.screen()
        reading = asyncio.create_task(watch.reading())
        yield watch
    finally:
        if reading is not None:
            reading.cancel()
        await watch.close()


async def shares(pids: dict[str, int], seconds: float) -> dict[str, float]:
    """The CPU of each process in shares of one core."""
    began_s = time.monotonic()
    async with Meter(pids) as meter:
        await asyncio.sleep(seconds)
    took_s = time.monotonic() - began_s
    return {name: round(used.cpu_s / took_s, 3) for name, used in meter.used.items()}


async def answers_ms(up: Running, count: int = 20) -> dict[str, float]:
    """The time of one answer, to which the first look of the conductor does not belong."""
    waits_ms = []
    for _ in range(count):
        began_s = time.monotonic()
        await call(up.jet, "running", {"limit": 20})
        waits_ms.append((time.monotonic() - began_s) * 1e3)
    waits_ms.sort()
    return {"p50": round(waits_ms[count // 2], 1), "most": round(waits_ms[-1], 1)}


async def measure(task: Task, count: int, seconds: float) -> dict[str, Any]:
    load = Load(sessions=count, seconds=4 * seconds + 60, rate=0)
    async with system(task) as up, publishers(task, up, load) as players, play_all(players):
        await asyncio.sleep(2 * SETTLE_S)
        alone = await shares(up.pids, seconds)
        async with watched(up) as watch:
            before = watch.screens
            with_watch = await shares({**up.pids, "watch": watch.process.pid}, seconds)
            screens = watch.screens - before
        async with watched(up) as again:
            pass
        return {
            "sessions": count,
            "first_screen_s": [round(watch.first_s, 2), round(again.first_s, 2)],
            "screens_a_second": round(screens / seconds, 2),
            "answer_ms": await answers_ms(up),
            "cpu_alone": alone,
            "cpu_with_watch": with_watch,
        }


async def main(count: int, seconds: float) -> None:
    environment = {**WIDE_LIMITS, **own_environment()}
    settings = Installation.here(environment).settings
    with tempfile.TemporaryDirectory(prefix="lucid-watching-") as folder:
        source = make_source(INCOMPRESSIBLE, 1 << 20, Path(folder))
        task = Task(source, Path(folder), settings, environment)
        print(json.dumps(await measure(task, count, seconds)))


if __name__ == "__main__":
    asyncio.run(
        main(
            int(sys.argv[1]) if len(sys.argv) > 1 else SESSIONS,
            float(sys.argv[2]) if len(sys.argv) > 2 else SECONDS,
        )
    )
