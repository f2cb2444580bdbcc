"""Measures many sessions at once, each at its own pace or idle: CPU, memory, and how long a chunk waits.

1. CPU is measured only while all sessions run (streams/bench/load.py).
2. Idle sessions are measured twice: with the ticks of their hosts, each made durable, and without.
3. A load that fails may end early: when a publisher gives up, or after the measured time if chunks waited
   too long until then. Its sessions are not ended, and its last chunks are not awaited.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from math import inf

from schemas import subjects
from streams.bench.actors import Actor, JsonObject
from streams.bench.chunk_waits import quiet, read_times
from streams.bench.contender import Task
from streams.bench.load import SETTLE_S, Load, publishers
from streams.bench.meter import Meter
from streams.bench.pipeline import Running, system

LATE_S = 1.0
"""A publisher that is later does not keep up."""
LONGEST_MS = 1000
"""A system does not keep up if one chunk in a hundred waits longer: from the fragment that closes it, as its
host sealed it, until it is stored."""
DRAIN_S = 10.0
"""All sessions end at once. The system may take so long, and the time in which they sent what is open."""
SHARDS_KEY = "lucid.shards"
"""In the metadata of RECORDINGS: the number of recording streams. Without it there is one.

Read here and not by streams/event_store: this module also runs in checkouts that know no shards."""
WIDE_LIMITS = {"MAX_CONCURRENT_SESSIONS": "100000", "HOST_SILENT_MAX": "600"}
"""At their defaults these settings end a large load for another reason than speed."""

Playing = asyncio.Future[list[JsonObject]]
"""The reports of all publishers."""


async def measure(task: Task, load: Load, *, patient: bool = True) -> JsonObject:
    """The figures of the system under this load. patient: measure a load that has failed to its end, too."""
    if load.rate:
        task = replace(task, environment={**WIDE_LIMITS, **task.environment})
    async with system(task) as up, publishers(task, up, load) as players:
        figures: JsonObject = {
            "sessions": load.sessions,
            "hosts": 1 if load.one_host else load.sessions,
            "rate_bits": load.rate * 8,
            "chunk_bytes": load.chunk_bytes,
            "shards": await _shards(up),
        }
        pids = {**up.pids, **{name: player.pid for name, player in players.items()}}
        async with play_all(players) as playing:
            await asyncio.wait({playing}, timeout=load.warm_s + load.spread_s + SETTLE_S)
            figures |= await _used(pids, load.seconds, playing)
            if not load.rate:
                await asyncio.sleep(2 * SETTLE_S)
                figures["silent"] = await _used(pids, load.silent_s, playing)
                return figures | {"late_s": late_s(await playing)}
            figures |= await _waits(up, load, playing, patient)
        fragments = load.fragments_per_s * figures["seconds"]
        cpu_s = sum(used["cpu_s"] for used in figures["processes"].values())
        return figures | {"cpu_ms_per_fragment": 1000 * cpu_s / fragments, "keeps_up": keeps_up(figures)}


@asynccontextmanager
async def play_all(players: Mapping[str, Actor]) -> AsyncIterator[Playing]:
    """Let the publishers play during the block. Those that are not done at its end are terminated."""
    for player in players.values():
        player.go()
    playing: Playing = asyncio.gather(*(player.done() for player in players.values()))
    try:
        yield playing
    finally:
        if not playing.done():
            playing.cancel()
            for player in players.values():
                player.terminate()
        await asyncio.gather(playing, return_exceptions=True)


async def _shards(up: Running) -> int:
    metadata = (await up.jet.info(subjects.RECORDINGS)).metadata
    return int(metadata.get(SHARDS_KEY, "1"))


async def _used(pids: Mapping[str, int], seconds: float, playing: Playing) -> JsonObject:
    """CPU and memory of the processes during so many seconds, or until the publishers are done."""
    async with Meter(pids) as meter:
        began_s = time.monotonic()
        await asyncio.wait({playing}, timeout=seconds)
        measured_s = time.monotonic() - began_s
    return {
        "seconds": measured_s,
        "others_share": meter.others,
        "processes": {
            name: {"cpu_s": used.cpu_s, "cpu_share": used.cpu_s / measured_s, "peak_bytes": used.peak_bytes}
            for name, used in meter.used.items()
        },
    }


async def _waits(up: Running, load: Load, playing: Playing, patient: bool) -> JsonObject:
    """How long chunks waited, in milliseconds, and whether all are stored."""
    so_far = {} if patient else (await read_times(up.jet)).so_far_ms(time.time())
    if so_far.get("p99", 0) > LONGEST_MS:
        return _ended_early(so_far, 0.0)
    played = await playing
    if any(one["gave_up"] for one in played):
        return _ended_early((await read_times(up.jet)).so_far_ms(time.time()), late_s(played))
    await quiet(up.jet)
    times = await read_times(up.jet)
    finished_s = max(one["finished_s"] for one in played)
    times.count_until_s = (
        finished_s - LONGEST_MS / 1000
    )  # one that is stored behind the end has failed already
    return {
        "ended_early": False,
        "late_s": late_s(played),
        "chunks": times.recorded,
        "timed": times.timed,
        "missing": times.missing,
        "unended": len(times.open_sessions),
        "drained_s": times.last_s - finished_s,
        "drain_most_s": DRAIN_S + load.open_s,
        "dead": (await up.jet.info(subjects.DEAD)).messages,
        "wait_ms": times.waits_ms(),
        "whole_ms": times.whole_ms(),
        "steps_ms": times.steps_ms(),
    }


def _ended_early(waits_ms: dict[str, float], late_s: float) -> JsonObject:
    """The same figures of a load that failed before its end: its waits are at least these."""
    counts = dict.fromkeys(("chunks", "timed", "missing", "unended", "dead"), 0)
    waits = {"wait_ms": waits_ms, "whole_ms": waits_ms, "steps_ms": {}}
    drained = {"drained_s": 0.0, "drain_most_s": DRAIN_S}
    return {"ended_early": True, "late_s": late_s, **counts, **drained, **waits}


def late_s(played: list[JsonObject]) -> float:
    return max(float(one["late_s"]) for one in played)


def keeps_up(figures: JsonObject) -> bool:
    """Whether nothing is lost, and nothing piles up: at the host, between stages, at the end."""
    return worst(figures)[1] < 1


def worst(figures: JsonObject) -> tuple[str, float]:
    """The criterion that comes nearest to failure, in words, and its share of the allowed value.

    1 and more is a failure.
    """
    counted = {"chunks missing": "missing", "sessions without an end": "unended", "dead letters": "dead"}
    shares = {f"{figures[name]:,} {text}": inf if figures[name] else 0.0 for text, name in counted.items()}
    p99, late_s, drained_s = figures["whole_ms"]["p99"], figures["late_s"], figures["drained_s"]
    most_s = figures["drain_most_s"]
    shares |= {
        f"p99 {p99:,.0f} ms, allowed {LONGEST_MS:,} ms": p99 / LONGEST_MS,
        f"a fragment {late_s:.1f} s late, allowed {LATE_S:g} s": late_s / LATE_S,
        f"drained in {drained_s:.0f} s, allowed {most_s:.0f} s": drained_s / most_s,
    }
    return max(shares.items(), key=lambda criterion: criterion[1])
