"""Measures the HTTP API: mixed requests, pages of many sessions, whole bodies, transitions.

1. One system as `lucid up` runs it serves all parts. Clients are processes of their own.
2. Mixed requests come while sessions are recorded at the given rate (streams/bench/load.py).
3. Limits of requests a minute are off: they bound one caller, and the measurement is one caller.
"""

import asyncio
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from schemas.errors import Misuse
from streams.bench import api_transfers
from streams.bench.actors import JsonObject
from streams.bench.api_requests import PAGE, ask
from streams.bench.api_transfers import acted
from streams.bench.api_transitions import HTTP, NATS, move, started
from streams.bench.contender import Task
from streams.bench.load import Load, bench_session, publishers
from streams.bench.pipeline import Running, system
from streams.bench.scale import HOSTS, fill
from streams.bench.sessions import WIDE_LIMITS, late_s, play_all
from streams.control.client import call

REQUESTS, PAGES, TRANSFERS, TRANSITIONS = PARTS = ("requests", "pages", "transfers", "transitions")
RATE_PER_S = 200
SESSIONS = 50
PAGES_PER_S, PAGES_S = 20, 10.0
MOVED, MOVED_S = 300, 10.0
LISTED_S = 900.0
SETTINGS = {
    **WIDE_LIMITS,
    "RATE_LIMIT_CALLER": "0",
    "RATE_LIMIT_ADDRESS": "0",
    "SESSION_API_PORT": "0",
}

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """The parts that are measured, and their sizes. finished: sessions that the pages list."""

    load: Load
    finished: int
    rate_per_s: float = RATE_PER_S
    parts: Collection[str] = PARTS


def parts(names: str) -> tuple[str, ...]:
    """The parts of `--only`, in their order; empty: all. Raises Misuse (bench.part)."""
    wanted = [name for name in names.split(",") if name]
    for name in wanted:
        if name not in PARTS:
            raise Misuse(f"--only {name} is no part (allowed: {', '.join(PARTS)})", code="bench.part")
    return tuple(name for name in PARTS if name in wanted or not wanted)


async def measure(task: Task, asked: Asked, note: Note) -> JsonObject:
    """The figures of each part."""
    task = replace(task, environment={**task.environment, **SETTINGS})
    figures: JsonObject = {}
    if PAGES in asked.parts:
        async with system(task):
            pass  # its keys are made, and its streams
        began_s = time.monotonic()
        await fill(task, asked.finished, HOSTS)
        note(f"{asked.finished:,} finished sessions written in {time.monotonic() - began_s:.0f} s")
    async with system(task, http=True) as up:
        if PAGES in asked.parts:
            await _listed(up, note)
            figures[PAGES] = await _requests(
                task, up, {"rate": PAGES_PER_S, "seconds": PAGES_S, "kinds": [PAGE], "sessions": []}
            )
            figures[PAGES]["finished"] = asked.finished
        if REQUESTS in asked.parts:
            figures[REQUESTS] = await _beside_recording(task, up, asked)
        if TRANSFERS in asked.parts:
            figures[TRANSFERS] = await api_transfers.measure(task, up)
        if TRANSITIONS in asked.parts:
            figures[TRANSITIONS] = await _transitions(task, up)
    return figures


async def _listed(up: Running, note: Note) -> None:
    """Return when the list shows every session."""
    began_s = time.monotonic()
    async with asyncio.timeout(LISTED_S):
        while (await call(up.jet, "list", {"limit": 1}))["behind"]:  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.2)
    note(f"listed after {time.monotonic() - began_s:.0f} s")


async def _requests(task: Task, up: Running, load: JsonObject) -> JsonObject:
    spec = {"url": up.api_url, "token": up.here.credential(), **load}
    return {"rate_per_s": load["rate"], **await acted(up, task, ask, spec)}


async def _beside_recording(task: Task, up: Running, asked: Asked) -> JsonObject:
    """Mixed requests while sessions are recorded. late_s: the latest fragment of these."""
    load = asked.load
    names = [bench_session(number) for number in range(load.sessions)]
    spec = {"rate": asked.rate_per_s, "seconds": load.seconds, "kinds": [], "sessions": names}
    async with publishers(task, up, load) as players, play_all(players) as playing:
        await asyncio.wait({playing}, timeout=load.warm_s + load.spread_s)
        found = await _requests(task, up, spec)
        late = late_s(await playing)
    return {**found, "recording": load.sessions, "rate_bits": load.rate * 8, "late_s": late}


async def _transitions(task: Task, up: Running) -> JsonObject:
    names = [f"moved-{number:04}" for number in range(MOVED)]
    await started(up.jet, names)
    found: JsonObject = {}
    for by in (NATS, HTTP):
        spec = {
            "nats": up.url,
            "url": up.api_url,
            "token": up.here.credential(),
            "by": by,
            "names": names,
            "seconds": MOVED_S,
        }
        found[by] = await acted(up, task, move, spec)
    return found
