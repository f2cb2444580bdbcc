"""How long chunks of honest hosts wait beside a hostile host, and without it: two runs, two systems."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from schemas import subjects
from streams.bench.actors import Actor
from streams.bench.contender import Task
from streams.bench.pipeline import Running, system
from streams.bench.sessions import Load, bench_host, bench_session
from streams.bench.waits import Times

CHUNK_BYTES = 1 << 18
"""One movie fragment a second makes a chunk each: in a minute enough of them for a p99."""
ALLOWED = 2.0
"""Times the p99 without a hostile host."""
DRAIN_S = 120.0
LOOK_S = 1.0


async def measure(task: Task, load: Load, *, hostile_rate: float) -> dict[str, Any]:
    """What both runs came to, as JSON tells it. hostile_rate: messages a second; 0: no bound."""
    calm = await _run(_below(task, "calm"), load, None)
    disturbed = await _run(_below(task, "hostile"), load, hostile_rate)
    ratio = {name: disturbed["wait_ms"][name] / max(calm["wait_ms"][name], 1e-3) for name in calm["wait_ms"]}
    return {
        "hosts": load.sessions,
        "rate_bits": load.rate * 8,
        "hostile_rate": hostile_rate,
        "seconds": load.seconds,
        "calm": calm,
        "hostile": disturbed,
        "ratio": ratio,
        "allowed": ALLOWED,
        "held": ratio["p99"] <= ALLOWED and not disturbed["missing"] and not disturbed["not_ended"],
    }


def _below(task: Task, name: str) -> Task:
    folder = task.folder / name
    folder.mkdir()
    return replace(task, folder=folder)


async def _run(task: Task, load: Load, hostile_rate: float | None) -> dict[str, Any]:
    async with system(task) as up:
        spec = {
            "source": str(task.source.path),
            "url": up.url,
            "sessions": load.sessions,
            "seconds": load.seconds,
            "rate": load.rate,
            "chunk_bytes": CHUNK_BYTES,
        }
        async with Actor("sessions:play", spec, task.folder / "honest.log", up.environment) as honest:
            async with _attack(task, up, load.sessions, hostile_rate) as said:
                honest.go()
                played = await honest.done()
            times = await _drained(up, load.sessions)
    return {
        "sent": said,
        "chunks": times.recorded,
        "missing": times.missing,
        "not_ended": len(times.open_sessions),
        "late_s": played["late_s"],
        "wait_ms": times.waits_ms(),
        "steps_ms": times.steps_ms(),
    }


@asynccontextmanager
async def _attack(task: Task, up: Running, hosts: int, rate: float | None) -> AsyncIterator[dict[str, int]]:
    """Meanwhile the hostile host attacks, unless rate is None. What it sent is known afterwards, by kind."""
    sent: dict[str, int] = {}
    if rate is None:
        yield sent
        return
    honest = [subjects.recording(bench_host(n), bench_session(n)) for n in range(hosts)]
    spec = {"url": up.url, "subjects": honest, "rate": rate}
    async with Actor("attack:attack", spec, task.folder / "hostile.log", up.environment) as attacker:
        attacker.go()
        yield sent
        attacker.go()
        sent |= await attacker.done()


async def _drained(up: Running, hosts: int) -> Times:
    """How long the honest chunks waited, once all are stored, or DRAIN_S have passed."""
    latest_s = time.monotonic() + DRAIN_S
    while True:
        times = Times()
        for number in range(hosts):
            async for message in up.jet.read_all(subjects.CHUNKS, subjects.chunk("*", bench_session(number))):
                times.take(message)
        if not (times.missing or times.open_sessions) or time.monotonic() > latest_s:
            return times
        await asyncio.sleep(LOOK_S)
