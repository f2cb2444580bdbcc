"""Prints the figures of the HTTP API as tables of 80 columns, each beside its goal."""

from typing import Any

from schemas.config.values import size_text
from streams.bench.api import PAGES, REQUESTS, TRANSFERS, TRANSITIONS
from streams.bench.api_requests import CREATE
from streams.bench.report import disturbance, machine_line

CREATE_MS, READ_MS, RATIO, PER_S = 100, 50, 0.7, 1000
"""The goals: p99 of creation and reads, download by plain file, transitions a second."""


def api(result: dict[str, Any]) -> list[str]:
    """The tables of all parts that were measured."""
    figures = result["results"]
    lines = [f"the HTTP API, {machine_line(result)}"]
    shares = []
    for part, table in (
        (REQUESTS, _requests),
        (PAGES, _pages),
        (TRANSFERS, _transfers),
        (TRANSITIONS, _transitions),
    ):
        if part in figures:
            lines += ["", *table(figures[part])]
            shares += [found["others_share"] for found in _uses(figures[part])]
    return [*lines, *disturbance(max(shares))]


def _requests(part: dict[str, Any]) -> list[str]:
    head = (
        f"{part['rate_per_s']:g} requests/s while {part['recording']} sessions record at "
        f"{part['rate_bits'] / 1e6:g} Mbit/s"
    )
    late = f"the latest fragment was {part['late_s']:.2f} s late"
    return [head, late, *_kinds(part), *_processes(part)]


def _pages(part: dict[str, Any]) -> list[str]:
    head = f"pages of 100 of {part['finished']:,} sessions, {part['rate_per_s']:g} a second"
    return [head, *_kinds(part), *_processes(part)]


def _kinds(part: dict[str, Any]) -> list[str]:
    lines = [f"{'':<16}{'count':>8}{'failed':>8}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}{'goal':>10}"]
    for kind, row in part["kinds"].items():
        goal = CREATE_MS if kind == CREATE else READ_MS
        times = "".join(f"{row[name]:>9.1f}" for name in ("p50", "p99", "max"))
        mark = "" if row["p99"] < goal and not row["failed"] else "  !"
        lines.append(f"{kind:<16}{row['count']:>8,}{row['failed']:>8}{times}{f'< {goal}':>10}{mark}")
    return lines


def _transfers(part: dict[str, Any]) -> list[str]:
    sent, got = part["upload"], part["download"]
    mark = "" if got["ratio"] >= RATIO else "  !"
    span = got["range_ms"]
    return [
        f"{size_text(part['bytes'])}, incompressible: upload {sent['mb_per_s']:.0f} MB/s",
        *_processes(sent),
        f"download {got['mb_per_s']:.0f} MB/s, plain file {got['plain_mb_per_s']:.0f} MB/s: "
        f"{got['ratio']:.2f} of it (goal {RATIO:g}){mark}",
        f"a range of 1 MB: p50 {span['p50']:.1f} ms, p99 {span['p99']:.1f} ms",
        *_processes(got),
    ]


def _transitions(part: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for by, row in part.items():
        mark = "" if row["transitions_per_s"] >= PER_S else "  !"
        waits = f"p50 {row['command_ms']['p50']:.0f} ms, p99 {row['command_ms']['p99']:.0f} ms"
        lines += [
            f"{row['sessions']:,} sessions by {by}: {row['transitions_per_s']:,.0f} transitions/s "
            f"(goal {PER_S:,}){mark}",
            f"{row['commands_per_s']:,.0f} commands/s, {waits}",
            *_processes(row),
        ]
    return lines


def _processes(part: dict[str, Any]) -> list[str]:
    lines = [f"  {'':<14}{'of a core':>10}{'peak memory':>14}"]
    for name, used in part["processes"].items():
        peak = size_text(used["peak_bytes"])
        lines.append(f"  {name:<14}{100 * used['cpu_share']:>8.1f} %{peak:>14}")
    return lines


def _uses(part: dict[str, Any]) -> list[dict[str, Any]]:
    return [part] if "others_share" in part else [one for one in part.values() if isinstance(one, dict)]
