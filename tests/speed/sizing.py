"""Measures the figures of docs/sizing.md and prints its table: about 15 minutes for each number of shards.

    just sizing            # the default number of shards
    just sizing 1 4 16     # one column for each of these

The command of each figure stands in its row. A figure that other programs disturbed is marked with `~`.
"""

import sys
from collections.abc import Callable
from typing import Any

from tests.speed.run import HERE, Result, bench

DISTURBED = 0.1
"""Share of the cores that other programs took."""


def _maximum(size: int) -> Callable[[Result], str]:
    """size: 0 is the default chunk size, 1 is 1 MiB, as `--sessions max` measures them."""
    return lambda result: f"{result['results']['of_chunk_size'][size]['maximum']:,}"


def _cpu_at_maximum(size: int) -> Callable[[Result], str]:
    def text(result: Result) -> str:
        figures = result["results"]["of_chunk_size"][size]["at_maximum"]
        return f"{figures['cpu_ms_per_fragment']:.2f} ms" if figures else ""

    return text


def _memory_at_maximum(size: int) -> Callable[[Result], str]:
    def text(result: Result) -> str:
        processes = result["results"]["of_chunk_size"][size]["at_maximum"].get("processes", {})
        peaks = [processes[name]["peak_bytes"] for name in ("server", "worker") if name in processes]
        return ", ".join(f"{peak / 1e6:.0f} MB" for peak in peaks)

    return text


def _pipeline(name: str, form: str) -> Callable[[Result], str]:
    return lambda result: form.format(result["results"]["pipeline"][name])


def _idle(result: Result) -> str:
    processes = result["results"]["processes"]
    return f"{100 * sum(used['cpu_share'] for used in processes.values()):.0f} %"


MAXIMUM = ("--sessions", "max")
BIG = ("--size", "1GB", "--runs", "3", "--only", "bare,pipeline")
SCREEN = (*BIG, "--data", "screen")
IDLE = ("--idle", "1000")
ROWS: tuple[tuple[str, tuple[str, ...], Callable[[Result], str]], ...] = (
    ("sessions at 1.2 Mbit/s, chunks of 10 MiB", MAXIMUM, _maximum(0)),
    ("sessions at 1.2 Mbit/s, chunks of 1 MiB", MAXIMUM, _maximum(1)),
    ("CPU of all processes for a fragment, 10 MiB", MAXIMUM, _cpu_at_maximum(0)),
    ("CPU of all processes for a fragment, 1 MiB", MAXIMUM, _cpu_at_maximum(1)),
    ("peak memory of server and worker, 10 MiB", MAXIMUM, _memory_at_maximum(0)),
    ("peak memory of server and worker, 1 MiB", MAXIMUM, _memory_at_maximum(1)),
    ("one large recording, incompressible", BIG, _pipeline("mb_per_s", "{:.0f} MB/s")),
    ("CPU of it", BIG, _pipeline("cpu_s_per_gb", "{:.1f} s/GB")),
    ("one large recording, screen", SCREEN, _pipeline("mb_per_s", "{:.0f} MB/s")),
    ("1,000 idle sessions, of a core", IDLE, _idle),
)


def others(value: Any) -> float:
    """The largest share of the cores that other programs took in a measurement."""
    if isinstance(value, list):
        return max(map(others, value), default=0.0)
    if isinstance(value, dict):
        return max([value.get("others_share", 0.0), *map(others, value.values())])
    return 0.0


def main(shards: list[str]) -> None:
    columns = shards or [""]
    results: dict[tuple[str, tuple[str, ...]], Result] = {}
    for column in columns:
        for _, arguments, _ in ROWS:
            if (column, arguments) not in results:
                print(f"SHARDS={column or 'default'} lucid bench {' '.join(arguments)}", file=sys.stderr)
                results[column, arguments] = bench(HERE, arguments, column)
    heads = [f"{column} shards" if column else "default" for column in columns]
    print("|", " | ".join(["", *heads, "`lucid bench …`"]), "|")
    print("|", " | ".join("---" for _ in range(len(columns) + 2)), "|", sep="")
    for name, arguments, text in ROWS:
        cells = []
        for column in columns:
            result = results[column, arguments]
            cells.append(text(result) + ("~" if others(result) > DISTURBED else ""))
        print("|", " | ".join([name, *cells, f"`{' '.join(arguments)}`"]), "|")
    machine = next(iter(results.values()))["machine"]
    print(f"\n{machine['cores']} cores of {machine['processor']}, {machine['disk']}, {machine['system']}")


if __name__ == "__main__":
    main(sys.argv[1:])
