"""Runs a comparison: every contender once a round, in a folder of its own, and the summary of all rounds.

1. Contenders run one after the other on one disk. Before each, the disk is synced, the source is in the page
   cache, and the files of the contender before are removed.
2. Stored bytes are opened and compared with the source afterwards; that is not timed.
3. A ratio is taken within its round: machines, disks and neighbours change between rounds. Over several
   rounds the median counts; for memory, the maximum.
"""

import asyncio
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from schemas.errors import Misuse
from streams.bench import baselines, faststream_pipeline, peers, pipeline, traced
from streams.bench.contender import Contender, Measure, Task
from streams.bench.data import Source

BARE, PIPELINE = "bare", "pipeline"
OURS: dict[str, Contender] = {
    "disk": baselines.measure_disk,
    "floor": baselines.measure_floor,
    BARE: baselines.measure_bare,
    PIPELINE: pipeline.measure,
}

TRACED: dict[str, Contender] = {
    "traced": traced.measure_traced,
    "hanging": traced.measure_hanging,
    "refusing": traced.measure_refusing,
}
"""Only measured if they are named."""

Round = dict[str, Measure]
Figures = dict[str, Any]


def contenders(only: Sequence[str] = ()) -> dict[str, Contender]:
    """The contenders that are installed here; `only`: the named ones. Raises Misuse (bench.contender)."""
    found = {**OURS, **peers.installed(), "faststream": faststream_pipeline.measure}
    found |= {name: measure for name, measure in TRACED.items() if name in only}
    absent = [name for name in only if name not in found]
    if unknown := [name for name in absent if name not in peers.PEERS]:
        all_names = ", ".join({**found, **TRACED, **peers.PEERS})
        raise Misuse(
            f"no contender is called {', '.join(unknown)}; there are: {all_names}",
            code="bench.contender",
        )
    if absent:
        programs = ", ".join(program for name in absent for program in peers.missing(name))
        raise Misuse(
            f"{', '.join(absent)} cannot be measured: not installed: {programs}",
            code="bench.contender",
            hint=f"install that, or take others: {', '.join(found)}",
        )
    return {name: measure for name, measure in found.items() if not only or name in only}


async def compare(
    task: Task, *, wanted: dict[str, Contender], runs: int, note: Callable[[str], None]
) -> dict[str, Any]:
    """The figures of `runs` rounds, and their summary. note: takes a line after each measurement."""
    rounds: list[Round] = []
    for number in range(runs):
        rounds.append({})
        for name, measure in wanted.items():
            measured = await _one(measure, replace(task, folder=task.folder / f"{name}-{number}"))
            rounds[-1][name] = measured
            speed = task.source.size / 1e6 / measured.seconds
            note(f"  {number + 1}/{runs} {name:<10}{speed:>6.0f} MB/s")
    of_runs = [{name: figures(name, of, task.source) for name in of} for of in rounds]
    source = task.source
    return {
        "data": {"kind": source.kind, "bytes": source.size, "blake3": source.digest.hex()},
        "results": summary(of_runs),
        "runs": of_runs,
    }


async def _one(measure: Contender, task: Task) -> Measure:
    await asyncio.to_thread(_prepare, task)
    try:
        return await measure(task)
    finally:
        await asyncio.to_thread(shutil.rmtree, task.folder, ignore_errors=True)


def _prepare(task: Task) -> None:
    task.folder.mkdir()
    os.sync()
    for _ in task.source.blocks():
        pass


def figures(name: str, of: Round, source: Source) -> Figures:
    """The figures of one contender in one round."""
    measure = of[name]
    gigabytes = source.size / 1e9
    result: Figures = {
        "seconds": measure.seconds,
        "mb_per_s": source.size / 1e6 / measure.seconds,
        "cpu_s_per_gb": sum(used.cpu_s for used in measure.used.values()) / gigabytes,
        "peak_bytes": max(used.peak_bytes for used in measure.used.values()),
        "chunks": measure.chunks,
        "stored_bytes": measure.stored,
        "checked": True,
        "others_share": measure.others,
        "more": dict(measure.more),
        "processes": {
            process: {
                "cpu_s": used.cpu_s,
                "cpu_s_per_gb": used.cpu_s / gigabytes,
                "peak_bytes": used.peak_bytes,
            }
            for process, used in measure.used.items()
        },
    }
    if BARE in of:
        result["ratio_to_bare"] = of[BARE].seconds / measure.seconds
    if PIPELINE in of:
        result["pipeline_ratio"] = measure.seconds / of[PIPELINE].seconds
    return result


def summary(runs: Sequence[dict[str, Figures]]) -> dict[str, Figures]:
    """By contender: the same figures over all rounds, as medians; for memory the maximum."""
    return {name: _joined([run[name] for run in runs]) for name in runs[0]}


def _joined(rounds: Sequence[Figures]) -> Figures:
    """Figure by figure; texts and booleans are the same in every round."""
    joined: Figures = {}
    for name, value in rounds[0].items():
        values = [figures[name] for figures in rounds]
        if isinstance(value, dict):
            joined[name] = _joined(values)
        elif isinstance(value, bool | str):
            joined[name] = value
        else:
            joined[name] = max(values) if name == "peak_bytes" else median(values)
    return joined
