"""Compares the speed of this checkout and another one: the same `lucid bench` in both, by turns.

    just bench-pair ../before --sessions 400 --seconds 20
    ROUNDS=5 just bench-pair ../before --size 1GB --only bare,pipeline

1. The machine, the disk and the hour are the same for both: the other checkout first, then this one, ROUNDS
   times. Medians are printed, and the ratio of this checkout to the other.
2. Each runs in its own environment (.venv) and data directory. The other checkout has had `uv sync`.
3. Both must measure alike. An older checkout has an older bench; put this one's into it. Only pipeline.py
   stays as it is there: it starts the system and records as that checkout does.

       git worktree add ../before COMMIT
       cp streams/bench/*.py ../before/streams/bench/
       git -C ../before checkout streams/bench/pipeline.py
       cp streams/cli/verbs/bench.py ../before/streams/cli/verbs/
       (cd ../before && uv sync)
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from tests.speed.run import HERE, bench

ROUNDS = int(os.environ.get("ROUNDS", "3"))
COMPARED = (
    *("maximum", "mb_per_s", "cpu_s_per_gb", "ratio_to_bare", "pipeline_ratio", "sealed", "peak_bytes"),
    *("cpu_ms_per_fragment", "cpu_ms_per_chunk", "cpu_share", "p50", "p99", "late_s", "drained_s"),
)
"""Names of the figures that are compared. `figures` finds them anywhere in a result."""

Figures = dict[str, float]
"""By their place in the result, such as pipeline.mb_per_s."""


def figures(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """The compared figures of a result with their places in it; a list's elements by number."""
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from figures(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, int | float) and path.rpartition(".")[2] in COMPARED:
        yield path, value / 1e6 if path.endswith("peak_bytes") else float(value)


def measured(checkout: Path, arguments: list[str]) -> Figures:
    """The figures of one `lucid bench` of a checkout."""
    results = bench(checkout, arguments)["results"]
    return {path: value for path, value in figures(results) if ".probes." not in path}


def medians(rounds: list[Figures]) -> Figures:
    """The median of each figure that every round has."""
    shared = [name for name in rounds[0] if all(name in one for one in rounds)]
    return {name: median(one[name] for one in rounds) for name in shared}


def table(before: Figures, now: Figures) -> Iterator[str]:
    yield f"{'peak_bytes in MB':<44}{'other':>12}{'this':>12}{'this/other':>12}"
    for name in now:
        if name in before:
            ratio = f"{now[name] / before[name]:>12.2f}" if before[name] else ""
            yield f"{name[-43:]:<44}{before[name]:>12,.2f}{now[name]:>12,.2f}{ratio}"


def main(other: Path, arguments: list[str]) -> None:
    found: dict[Path, list[Figures]] = {other: [], HERE: []}
    for number in range(ROUNDS):
        for checkout, rounds in found.items():
            rounds.append(measured(checkout, arguments))
            print(f"  {number + 1}/{ROUNDS} {checkout}", file=sys.stderr)
    print(*table(medians(found[other]), medians(found[HERE])), sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2:])
