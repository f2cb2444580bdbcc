"""Finds how many sessions keep up: doubles their number until one fails, then halves the interval.

1. Each probe is a fresh system (streams/bench/sessions.py); a failed one ends early. The criterion is one for
   all measurements: p99 below 1 s from the closing fragment to the store, nothing late, missing or dead.
2. The search ends when the greatest number that kept up and the least that did not are 10 % apart.
3. A probe near its border is measured again. Both together decide, so that one disturbed second does not.
"""

import asyncio
import math
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace

import psutil

from schemas.config.values import size_text
from streams.bench.actors import JsonObject
from streams.bench.contender import Task
from streams.bench.load import Load
from streams.bench.sessions import LONGEST_MS, measure, worst

GUESS_BYTES = 15_000_000
"""A second, of each core: where the search begins."""
APART = 0.1
"""The remaining interval, as a share of its upper end."""
NEAR = (0.5, 2.0)
"""The worst criterion is near its border between these shares of the allowed value."""
FREE_SHARE = 0.5
"""A probe fills at most so much of the free disk: the server's limits are shares of it, too."""

Note = Callable[[str], None]
ProbeOf = Callable[[int], Awaitable[JsonObject]]


async def measure_max(task: Task, load: Load, chunk_sizes: tuple[int, ...], note: Note) -> JsonObject:
    """The greatest load that keeps up, for each chunk size. load: of each session."""
    found = []
    guess = max(1, GUESS_BYTES * (psutil.cpu_count() or 1) // load.rate)
    for chunk_bytes in chunk_sizes:
        note(f"chunks of {size_text(chunk_bytes)}, {load.seconds:g} s a probe")

        async def of(sessions: int, chunk_bytes: int = chunk_bytes) -> JsonObject:
            return await probe(task, replace(load, sessions=sessions, chunk_bytes=chunk_bytes), note)

        found.append({"chunk_bytes": chunk_bytes, **await search(of, guess)})
        guess = found[-1]["maximum"] or guess
    return {
        "rate_bits": load.rate * 8,
        "seconds": load.seconds,
        "longest_ms": LONGEST_MS,
        "of_chunk_size": found,
    }


async def search(probe_of: ProbeOf, guess: int) -> JsonObject:
    """The maximum and its figures, the first number that failed and why, and a line for each probe."""
    kept: dict[int, JsonObject] = {0: {}}
    failed: dict[int, str] = {}
    probes = []
    count = guess
    while True:
        figures, share, why = await _judged(probe_of, count)
        probes.append(_line(count, figures, share, why))
        if share < 1:
            kept[count] = figures
        else:
            failed[count] = why
        low, high = max(kept), min(failed, default=0)
        if high and high - low <= max(1, APART * high):
            break
        count = (low + high) // 2 if high else 2 * count
        count = round(count, -1) if count >= 100 else count
    return {
        "maximum": low,
        "first_failed": high,
        "why": failed[high],
        "at_maximum": kept[low],
        "probes": probes,
    }


async def _judged(probe_of: ProbeOf, count: int) -> tuple[JsonObject, float, str]:
    """The figures of one probe, its worst share of an allowed value, and that criterion in words."""
    figures = await probe_of(count)
    why, share = _worst(figures)
    if NEAR[0] <= share < NEAR[1]:
        again = await probe_of(count)
        why_again, share_again = _worst(again)
        if share_again > share:
            figures, why = again, why_again
        share = math.sqrt(share * share_again)
    return figures, share, why


def _worst(figures: JsonObject) -> tuple[str, float]:
    if "refused" in figures:
        return figures["refused"], math.inf
    return worst(figures)


def _line(count: int, figures: JsonObject, share: float, why: str) -> JsonObject:
    return {
        "sessions": count,
        "keeps_up": share < 1,
        "worst": why,
        "whole_ms": figures.get("whole_ms", {}),
        "cpu_ms_per_fragment": figures.get("cpu_ms_per_fragment"),
    }


async def probe(task: Task, load: Load, note: Note) -> JsonObject:
    """One system under one load, in a folder of its own. Too little disk is a failure like any other."""
    folder = task.folder / "probe"
    needed = 2 * load.sessions * load.rate * (load.warm_s + load.play_s)
    free = shutil.disk_usage(task.folder).free
    if needed > FREE_SHARE * free:
        text = f"it would fill {size_text(int(needed))} of {size_text(free)} free"
        note(f"  {load.sessions:>6,} sessions: {text}")
        return {"refused": text}
    folder.mkdir()
    try:
        figures = await measure(replace(task, folder=folder), load, patient=False)
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    why, share = _worst(figures)
    wait = f"p99 {figures['whole_ms']['p99']:>7,.0f} ms"
    cpu = f"{figures['cpu_ms_per_fragment']:.2f} ms of CPU a fragment"
    note(f"  {load.sessions:>6,} sessions: {wait}, {cpu}; {'keeps up' if share < 1 else why}")
    return figures
