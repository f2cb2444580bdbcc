"""Measures whether cost grows with size: the same work for 100 to 10,000 chunks, and for 1 to 1,000 sessions.

1. One recording in chunks of the smallest size, each of four fragments: 10,000 of them are 2.6 GB. Its cost
   is CPU time of all processes for each chunk.
2. Sessions at the given rate, in chunks of 1 MiB unless another size is given. Their cost is CPU time of all
   processes for each fragment.
3. Cost that does not grow is flat: the last row divided by the first is about 1, or less, because larger
   loads make larger batches. Rows of sessions that do not keep up do not count. Every row is a fresh system.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from streams.bench import pipeline, sessions
from streams.bench.actors import JsonObject
from streams.bench.contender import LEAST_CHUNK_BYTES, Task
from streams.bench.data import INCOMPRESSIBLE, make_source
from streams.bench.load import Load

CHUNKS = (100, 1_000, 10_000)
SESSIONS = (1, 10, 100, 1_000)

Note = Callable[[str], None]


async def measure(
    task: Task,
    load: Load,
    note: Note,
    chunks: tuple[int, ...] = CHUNKS,
    numbers: tuple[int, ...] = SESSIONS,
) -> JsonObject:
    """The rows of both tables, and for each the cost of the last row divided by that of the first.

    load: of each session. Its number of sessions does not count.
    """
    by_chunks = [await _chunks(task, number, note) for number in chunks]
    by_sessions = [await _sessions(task, replace(load, sessions=number), note) for number in numbers]
    kept = [row for row in by_sessions if row["keeps_up"]]
    return {
        "chunk_bytes": LEAST_CHUNK_BYTES,
        "rate_bits": load.rate * 8,
        "seconds": load.seconds,
        "chunks": by_chunks,
        "sessions": by_sessions,
        "ratio": {
            "cpu_ms_per_chunk": _ratio(by_chunks, "cpu_ms_per_chunk"),
            "cpu_ms_per_fragment": _ratio(kept or by_sessions[:1], "cpu_ms_per_fragment"),
        },
    }


def _ratio(rows: list[JsonObject], name: str) -> float:
    return float(rows[-1][name] / rows[0][name])


async def _chunks(task: Task, number: int, note: Note) -> JsonObject:
    """One row: the cost of one recording of so many chunks."""
    async with _folder(task, f"chunks-{number}") as folder:
        small = task.of_chunks(LEAST_CHUNK_BYTES)
        source = await asyncio.to_thread(make_source, INCOMPRESSIBLE, number * LEAST_CHUNK_BYTES, folder)
        measured = await pipeline.measure(replace(small, source=source, folder=folder))
    cpu_s = sum(used.cpu_s for used in measured.used.values())
    row = {
        "chunks": measured.chunks,
        "seconds": measured.seconds,
        "sealed_s": measured.more["sealed"],
        "mb_per_s": source.size / 1e6 / measured.seconds,
        "cpu_ms_per_chunk": 1000 * cpu_s / measured.chunks,
        "cpu_s_per_gb": cpu_s / (source.size / 1e9),
        "peak_bytes": {name: used.peak_bytes for name, used in measured.used.items()},
        "others_share": measured.others,
    }
    note(f"  {number:>6,} chunks: {row['cpu_ms_per_chunk']:.2f} ms of CPU a chunk, {row['seconds']:.1f} s")
    return row


async def _sessions(task: Task, load: Load, note: Note) -> JsonObject:
    """One row: the cost of so many sessions."""
    async with _folder(task, f"sessions-{load.sessions}") as folder:
        figures = await sessions.measure(replace(task, folder=folder), load)
    row = {
        "sessions": load.sessions,
        "cpu_ms_per_fragment": figures["cpu_ms_per_fragment"],
        "wait_ms": figures["wait_ms"],
        "whole_ms": figures["whole_ms"],
        "keeps_up": figures["keeps_up"],
        "peak_bytes": {name: used["peak_bytes"] for name, used in figures["processes"].items()},
        "others_share": figures["others_share"],
    }
    note(f"  {load.sessions:>6,} sessions: {row['cpu_ms_per_fragment']:.2f} ms of CPU a fragment")
    return row


@asynccontextmanager
async def _folder(task: Task, name: str) -> AsyncIterator[Path]:
    folder = task.folder / name
    folder.mkdir()
    try:
        yield folder
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
