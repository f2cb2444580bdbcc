"""Prints measurements as tables of 80 columns, and names the machine and versions beside them.

A figure stands under its unit. The tables leave out the figures that only `--json` readers need.
"""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from schemas.config.values import size_text
from streams.bench import peers, sessions
from streams.roles.drivers import server_version

PACKAGES = ("lucid-sessions", "nats-py", "cryptography", "blake3", "zstandard", "pydantic", "faststream")
NAMES = {"bare": "bare loop", "zstd-age": "zstd | age"}
DISTURBED = 0.1
"""Share of the cores. Above it, only ratios within one run mean something, speeds do not."""
HEAD = f"{'':<16}{'MB/s':>8}{'of bare':>10}{'pipeline':>10}{'CPU-s/GB':>10}{'peak memory':>14}"


def machine(folder: Path) -> dict[str, Any]:
    """Cores, memory, kernel, the disk of a folder, and the load of other programs now."""
    return {
        "cores": os.cpu_count() or 1,
        "processor": _processor(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "disk": _disk(folder),
        "load": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Python, the NATS server, the packages and the peers, by name."""
    found = {"python": platform.python_version(), "nats-server": server_version()}
    found |= {name: version(name) for name in PACKAGES}
    return found | {name: peers.version(name) for name in peers.installed()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _disk(folder: Path) -> str:
    """The file system that holds a folder: ext4 on /dev/vda."""
    mounted = [part for part in psutil.disk_partitions(all=True) if folder.is_relative_to(part.mountpoint)]
    deepest = max(mounted, key=lambda part: len(part.mountpoint), default=None)
    return f"{deepest.fstype} on {deepest.device}" if deepest else "unknown"


def comparison(result: dict[str, Any]) -> list[str]:
    """The table of a comparison."""
    data, versions = result["data"], result["versions"]
    rounds = f"median of {len(result['runs'])} runs" if len(result["runs"]) > 1 else "one run"
    lines = [
        f"{size_text(data['bytes'])} of {data['kind']}, {machine_line(result)}",
        f"chunks of {size_text(result['settings']['chunk_bytes'])}, {rounds}; "
        "stored bytes were opened and compared",
        "pipeline: its speed divided by that of the line",
        "",
        HEAD,
    ]
    for name, figures in result["results"].items():
        called = " ".join([NAMES.get(name, name), versions.get(name, "")]).strip()
        ratios = (figures.get("ratio_to_bare"), figures.get("pipeline_ratio"))
        lines.append(_row(called, figures["mb_per_s"], ratios, figures["cpu_s_per_gb"], 0))
        if "sealed" in figures["more"]:
            seconds = figures["more"]["sealed"]
            ratio = figures.get("ratio_to_bare", 0) * figures["seconds"] / seconds
            lines.append(_row("  until sealed", data["bytes"] / 1e6 / seconds, (ratio, None), None, 0))
        for process, used in figures["processes"].items():
            called = f"  {process}" if process != name else "  its process"
            lines.append(_row(called, None, (None, None), used["cpu_s_per_gb"], used["peak_bytes"]))
    return [*lines, *disturbance(max(figures["others_share"] for figures in result["results"].values()))]


def load(result: dict[str, Any]) -> list[str]:
    """The table of many sessions."""
    figures = result["results"]
    pace = f"at {figures['rate_bits'] / 1e6:g} Mbit/s each" if figures["rate_bits"] else "idle"
    return [
        f"{figures['sessions']:,} sessions {pace}, {figures['seconds']:.0f} s, {machine_line(result)}",
        *_of_load(figures),
        *disturbance(figures["others_share"]),
    ]


def _of_load(figures: dict[str, Any]) -> list[str]:
    """Waits of chunks, the verdict, and the use of each process."""
    lines = []
    if "wait_ms" in figures:
        if not figures["keeps_up"]:
            lines.append(f"DOES NOT KEEP UP: {sessions.worst(figures)[0]}")
        else:
            late, missing = figures["late_s"], figures["missing"]
            lines.append(f"keeps up: the latest fragment was {late:.2f} s late, {missing} chunks missing")
        lines += [
            f"from closed to stored:   {_waits(figures['wait_ms'])}",
            f"with the way to record:  {_waits(figures['whole_ms'])}",
            f"{figures['timed']:,} chunks of {size_text(figures['chunk_bytes'])}, "
            f"{figures['cpu_ms_per_fragment']:.2f} ms of CPU a fragment, {_shards(figures['shards'])}",
        ]
    silent = figures.get("silent", {}).get("processes", {})
    lines += ["", f"{'':<16}{'of a core':>10}{'peak memory':>14}{'  without ticks' if silent else ''}"]
    for process, used in figures["processes"].items():
        row = f"{process:<16}{100 * used['cpu_share']:>8.1f} %{size_text(used['peak_bytes']):>14}"
        lines.append(row + (f"{100 * silent[process]['cpu_share']:>13.1f} %" if silent else ""))
    return lines


def _waits(waits_ms: dict[str, float]) -> str:
    return "   ".join(f"{name} {value:,.0f} ms" for name, value in waits_ms.items())


def _shards(number: int) -> str:
    return f"{number} shards" if number > 1 else "1 shard"


def most(result: dict[str, Any]) -> list[str]:
    """The tables of the greatest number of sessions that keep up."""
    figures = result["results"]
    lines = [
        f"sessions at {figures['rate_bits'] / 1e6:g} Mbit/s that keep up, {machine_line(result)},",
        f"{result['machine']['disk']}; p99 below {figures['longest_ms']:,} ms from the closing fragment to",
        f"the store, nothing late, missing or dead; {figures['seconds']:g} s a probe",
    ]
    for found in figures["of_chunk_size"]:
        size = size_text(found["chunk_bytes"])
        lines += ["", f"chunks of {size}: {found['maximum']:,} sessions keep up"]
        lines.append(f"{found['first_failed']:,} do not: {found['why']}")
        if found["maximum"]:
            lines += _of_load(found["at_maximum"])
    return lines


def growth(result: dict[str, Any]) -> list[str]:
    """The tables of cost by chunks and by sessions."""
    figures = result["results"]
    size, rate = size_text(figures["chunk_bytes"]), figures["rate_bits"] / 1e6
    memory = f"{'worker':>10}{'server':>10}"
    lines = [
        f"cost by size, {machine_line(result)}",
        "",
        f"{f'chunks of {size}':<18}{'seconds':>9}{'ms a chunk':>12}{'CPU-s/GB':>10}{memory}",
    ]
    for row in figures["chunks"]:
        cost = f"{row['seconds']:>9.1f}{row['cpu_ms_per_chunk']:>12.2f}{row['cpu_s_per_gb']:>10.2f}"
        lines.append(f"{row['chunks']:<18,}{cost}{_memory(row)}")
    lines += ["", f"{f'sessions {rate:g} Mbit/s':<18}{'ms a fragment':>15}{'p50 ms':>8}{'p99 ms':>8}{memory}"]
    for row in figures["sessions"]:
        cost = (
            f"{row['cpu_ms_per_fragment']:>15.2f}{row['whole_ms']['p50']:>8.0f}{row['whole_ms']['p99']:>8.0f}"
        )
        kept = "" if row["keeps_up"] else "  !"
        lines.append(f"{row['sessions']:<18,}{cost}{_memory(row)}{kept}")
    if not all(row["keeps_up"] for row in figures["sessions"]):
        lines.append("! it does not keep up")
    ratio = figures["ratio"]
    disturbed = max(row["others_share"] for row in (*figures["chunks"], *figures["sessions"]))
    return [
        *lines,
        "",
        f"last row by first: {ratio['cpu_ms_per_chunk']:.2f} a chunk, "
        f"{ratio['cpu_ms_per_fragment']:.2f} a fragment (1 and less is flat)",
        *disturbance(disturbed),
    ]


def _memory(row: dict[str, Any]) -> str:
    return f"{size_text(row['peak_bytes']['worker']):>10}{size_text(row['peak_bytes']['server']):>10}"


def finished(result: dict[str, Any]) -> list[str]:
    """The table of a system with very many finished sessions."""
    figures = result["results"]
    owners = "one host" if figures["hosts"] == 1 else f"{figures['hosts']:,} hosts"
    lines = [f"{figures['sessions']:,} finished sessions of {owners}, {machine_line(result)}"]
    for name, start in (("first start", figures["first_start"]), ("start", figures["start"])):
        lines.append(f"{name}: commands are answered after {start['answered_s']:.1f} s; peak memory")
        lines.append(
            "  " + ", ".join(f"{role} {size_text(peak)}" for role, peak in start["peak_bytes"].items())
        )
    for command in ("create", "room", "show"):
        p50, p99 = (figures[f"{command}_ms"][name] for name in ("p50", "p99"))
        lines.append(f"{command}: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    return [*lines, *(f"list, {name}: {seconds:.2f} s" for name, seconds in figures["list_s"].items())]


def hostile(result: dict[str, Any]) -> list[str]:
    """The table of honest hosts beside a hostile one."""
    figures = result["results"]
    calm, disturbed, ratio = figures["calm"], figures["hostile"], figures["ratio"]
    rate = figures["rate_bits"] / 1e6
    lines = [
        f"{figures['hosts']} honest hosts at {rate:g} Mbit/s each, {figures['seconds']:.0f} s",
        machine_line(result),
        "the hostile one sent",
        "  " + ", ".join(f"{count:,} {kind}" for kind, count in disturbed["sent"].items()),
        "",
        f"{'closed to stored':<18}{'without it':>12}{'beside it':>12}{'ratio':>8}",
    ]
    for name in ratio:
        waits = f"{calm['wait_ms'][name]:>9.0f} ms{disturbed['wait_ms'][name]:>9.0f} ms"
        lines.append(f"  {name:<16}{waits}{ratio[name]:>8.2f}")
    kept = "held" if figures["held"] else "NOT HELD"
    return [
        *lines,
        f"{kept}: p99 within {figures['allowed']:g} times; {disturbed['chunks']:,} honest chunks, "
        f"{disturbed['missing']} missing",
    ]


def machine_line(result: dict[str, Any]) -> str:
    """2 cores (load 0.1), nats-server 2.15.1"""
    machine = result["machine"]
    return (
        f"{machine['cores']} cores (load {machine['load']}), nats-server {result['versions']['nats-server']}"
    )


def disturbance(share: float) -> list[str]:
    if share < DISTURBED:
        return []
    return [
        "",
        f"other programs took up to {100 * share:.0f} % of the cores: measure again when they are done",
    ]


def _row(
    name: str, speed: float | None, ratios: tuple[float | None, float | None], cpu: float | None, peak: int
) -> str:
    cells = (
        f"{speed:>8.0f}" if speed is not None else " " * 8,
        *(f"{ratio:>10.2f}" if ratio else " " * 10 for ratio in ratios),
        f"{cpu:>10.2f}" if cpu is not None else " " * 10,
        f"{size_text(peak):>14}" if peak else "",
    )
    return f"{name:<16}{''.join(cells)}".rstrip()
