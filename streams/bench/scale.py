"""Measures a system with very many finished sessions: start, memory, create, list, quota, show.

1. The sessions are written into the streams of a system that has run once and is stopped (bench.finished).
   The server that writes them does not sync; the measured one does.
2. Two starts are measured. The first finds a log without projections; the second is a start as on any day.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from schemas.ports import Jet
from streams.bench.contender import Task
from streams.bench.finished import FinishedHost, Line, finished_sessions
from streams.bench.meter import Meter
from streams.bench.pipeline import Running, system
from streams.control.client import call
from streams.roles.drivers import Installation, connected

HOSTS = 1000
AT_ONCE = 500
TRIES = 200
PAGE = 100
PATIENCE_S = 900.0
SETTLE_S = 20.0
"""After a start, the list of open sessions is written within this time."""


async def measure(task: Task, count: int, hosts: int, note: Callable[[str], None]) -> dict[str, Any]:
    """The figures of both starts and of each command."""
    async with system(task):
        pass  # its keys are made, and its streams
    began_s = time.monotonic()
    await fill(task, count, hosts)
    note(f"{count:,} finished sessions of {hosts:,} hosts written in {time.monotonic() - began_s:.0f} s")
    first = await _start(task, lambda _: asyncio.sleep(SETTLE_S))
    figures: dict[str, Any] = {}

    async def look(up: Running) -> None:
        host = FinishedHost("host-0000") if hosts == 1 else FinishedHost("host-new")
        host.counter = count if hosts == 1 else 0
        figures["list_s"] = await _list(up.jet)
        figures["create_ms"] = await _create(up.jet, host)
        figures["room_ms"] = await _times(TRIES, lambda _: call(up.jet, "room", {}))
        figures["show_ms"] = await _times(
            TRIES, lambda n: call(up.jet, "show", {"session": _name(n * count // TRIES)})
        )

    second = await _start(task, look)
    return {"sessions": count, "hosts": hosts, "first_start": first, "start": second, **figures}


async def fill(task: Task, count: int, hosts: int) -> None:
    here = Installation.here({**task.environment, "LUCID_DATA": str(task.folder / "data")})
    server = here.unsynced_server()
    await server.start()
    try:
        async with connected(server.url, "lucid-bench") as jet:
            waiting: list[list[Line]] = []
            for lines in finished_sessions(count, hosts):
                waiting.append(lines)
                if len(waiting) == AT_ONCE:
                    await _write(jet, waiting)
                    waiting = []
            await _write(jet, waiting)
    finally:
        await server.stop()


async def _write(jet: Jet, sessions: Iterable[list[Line]]) -> None:
    async def one(lines: list[Line]) -> None:
        for subject, body in lines:
            await jet.publish(subject, body)

    await asyncio.gather(*map(one, sessions))


async def _start(task: Task, work: Callable[[Running], Awaitable[None]]) -> dict[str, Any]:
    """Seconds until commands are answered, and the peak memory of each process until `work` is done."""
    began_s = time.monotonic()
    async with system(task) as up:
        answered_s = time.monotonic() - began_s
        async with Meter(up.pids) as meter:
            await work(up)
    memory = {name: used.peak_bytes for name, used in meter.used.items()}
    return {"answered_s": answered_s, "peak_bytes": memory}


async def _list(jet: Jet) -> dict[str, float]:
    """Seconds until the list is complete, and of one page each."""
    began_s = time.monotonic()
    async with asyncio.timeout(PATIENCE_S):
        while (page := await call(jet, "list", {"limit": PAGE}))["behind"]:  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.2)
    took_s = {"complete_after": time.monotonic() - began_s}
    middle = page["next"] // 2
    asked = {
        "first page": {},
        "middle page": {"after": middle},
        "by state": {"state": "STOPPED", "after": middle},
        "by a state that none has": {"state": "ERROR"},
        "by host": {"host": "host-0000"},
        "by name": {"text": "0000017"},
        "by a name that none has": {"text": "nobody"},
    }
    for name, body in asked.items():
        began_s = time.monotonic()
        await call(jet, "list", {"limit": PAGE, **body})
        took_s[name] = time.monotonic() - began_s
    return took_s


async def _create(jet: Jet, host: FinishedHost) -> dict[str, float]:
    asked = [host.create(f"created-{number:04}", 1).model_dump(mode="json") for number in range(TRIES)]
    return await _times(TRIES, lambda number: call(jet, "create", asked[number]))


async def _times(count: int, ask: Callable[[int], Awaitable[object]]) -> dict[str, float]:
    """Milliseconds, one after the other."""
    took = []
    for number in range(count):
        began_s = time.perf_counter()
        await ask(number)
        took.append((time.perf_counter() - began_s) * 1000)
    took.sort()
    return {"p50": took[len(took) // 2], "p99": took[math.ceil(0.99 * len(took)) - 1]}


def _name(number: int) -> str:
    return f"finished-{number:07}"
