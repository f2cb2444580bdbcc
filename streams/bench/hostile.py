"""Measures how long chunks of honest hosts wait with and without a hostile host: two runs, two systems."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from schemas import subjects
from streams.bench.actors import Actor, JsonObject
from streams.bench.attack import attack
from streams.bench.chunk_waits import Times
from streams.bench.contender import LEAST_CHUNK_BYTES, Task
from streams.bench.load import Load, bench_host, bench_session, publishers
from streams.bench.pipeline import Running, system

ALLOWED = 2.0
"""Times the p99 without a hostile host."""
DRAIN_S = 120.0
LOOK_S = 1.0


async def measure(task: Task, load: Load, *, hostile_rate: float) -> JsonObject:
    """The figures of both runs. hostile_rate: messages a second; 0: no bound.

    One movie fragment a second makes a chunk each, so one minute gives enough chunks for a p99.
    """
    load = replace(load, chunk_bytes=LEAST_CHUNK_BYTES)
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


async def _run(task: Task, load: Load, hostile_rate: float | None) -> JsonObject:
    async with system(task) as up, publishers(task, up, load) as honest:
        async with _attack(task, up, load.sessions, hostile_rate) as sent:
            for player in honest.values():
                player.go()
            played = await asyncio.gather(*(player.done() for player in honest.values()))
        times = await _drained(up, load.sessions)
    return {
        "sent": sent,
        "chunks": times.recorded,
        "missing": times.missing,
        "not_ended": len(times.open_sessions),
        "late_s": max(one["late_s"] for one in played),
        "wait_ms": times.waits_ms(),
        "steps_ms": times.steps_ms(),
    }


@asynccontextmanager
async def _attack(task: Task, up: Running, hosts: int, rate: float | None) -> AsyncIterator[dict[str, int]]:
    """The hostile host attacks meanwhile, unless rate is None. Yields its messages by kind, at the end."""
    sent: dict[str, int] = {}
    if rate is None:
        yield sent
        return
    honest = [subjects.recording(bench_host(n), bench_session(n)) for n in range(hosts)]
    spec = {"url": up.url, "subjects": honest, "rate": rate}
    async with Actor(attack, spec, task.folder / "hostile.log", up.environment) as attacker:
        attacker.go()
        yield sent
        attacker.go()
        sent |= await attacker.done()


async def _drained(up: Running, hosts: int) -> Times:
    """The waits of the honest chunks, once all are stored, or DRAIN_S have passed."""
    latest_s = time.monotonic() + DRAIN_S
    while True:
        times = Times()
        for number in range(hosts):
            async for message in up.jet.read_all(subjects.CHUNKS, subjects.chunk("*", bench_session(number))):
                times.take(message)
        if not (times.missing or times.open_sessions) or time.monotonic() > latest_s:
            return times
        await asyncio.sleep(LOOK_S)
