"""The verb `lucid bench`: measures the speed of this machine, all contenders in one run.

1. It uses a temporary data directory on the disk of the data directory, and touches no other.
2. Settings that decide bytes (chunk size, codec, suite) and limits come from the environment; paths do not.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from schemas.config.settings import VARIABLES, Settings
from schemas.config.values import MIB, size_text
from schemas.errors import Misuse, NoSpace
from streams.bench import api, growth, hostile, report, rounds, scale, scrubbed, sessions
from streams.bench.api_report import api as api_tables
from streams.bench.contender import CHUNK_SIZE, LEAST_CHUNK_BYTES, Task, with_chunk_size
from streams.bench.data import INCOMPRESSIBLE, SCREEN, make_source, parse_rate, parse_size
from streams.bench.load import SMALL_CHUNK_BYTES, Load
from streams.bench.max_sessions import measure_max
from streams.bench.report import machine, versions
from streams.cli import attach, output
from streams.cli.output import JsonFlag
from streams.roles.drivers import Installation

NOT_OURS = {"environment", "data", "nats_url", "nats_storage_bytes", "mongodb_url", "encryption_key"}
"""Settings that would lead to another installation; paths do, too."""
SPACE, SPACE_BYTES = 4, 2 << 30
"""Times the source: itself, the stream, the chunks, the server's reserve; and so much beside."""
FINISHED_BYTES = 7000
"""Bytes of one finished session in the streams."""
HONEST = 9
"""Hosts beside the hostile one."""
MAX = "max"
MEASURED_S, PROBE_S = 60.0, 20.0
LISTED = 100_000
"""Finished sessions that the pages of --api list, unless --finished says how many."""
API_BYTES = 400_000_000
"""Bytes of the recording that --api transfers, unless --size says how many."""
HOSTILE_BYTES = 2 << 30
"""Bytes that a hostile host may fill in a minute."""
SCRUB_SOURCE_BYTES = 400_000_000
"""Bytes of the recording beside a scrub."""
SOURCE_BYTES = 4 << 20
"""Of a measurement that is not about its source."""
Measurement = Callable[[Task], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Plan:
    """One measurement. needed_bytes: on disk; lines: its report; source_bytes: size of its data set."""

    name: str
    needed_bytes: int
    measure: Measurement
    lines: Callable[[dict[str, Any]], list[str]]
    data: str = INCOMPRESSIBLE
    source_bytes: int = SOURCE_BYTES


def bench(
    size: Annotated[str, typer.Option(help="Bytes to record. Unset: 1GB; with --api 400MB.")] = "",
    data: Annotated[str, typer.Option(help=f"{SCREEN}, {INCOMPRESSIBLE}, or a file.")] = INCOMPRESSIBLE,
    runs: Annotated[int, typer.Option(help="Rounds; the median counts.", min=1)] = 1,
    only: Annotated[str, typer.Option(help="Only these contenders, such as bare,pipeline.")] = "",
    many: Annotated[
        str, typer.Option("--sessions", help="Instead: so many sessions at once; max: as many as keep up.")
    ] = "",
    idle: Annotated[int, typer.Option(help="Instead: so many idle sessions.", min=0)] = 0,
    with_hostile: Annotated[
        bool, typer.Option("--hostile", help="Instead: nine honest hosts, without and beside a hostile one.")
    ] = False,
    hostile_rate: Annotated[
        float, typer.Option(help="Messages a second of the hostile host; 0: no bound.", min=0)
    ] = 0,
    finished: Annotated[
        int, typer.Option(help="Instead: a system with so many finished sessions.", min=0)
    ] = 0,
    grow: Annotated[
        bool, typer.Option("--growth", help="Instead: cost at 100 to 10,000 chunks, 1 to 1,000 sessions.")
    ] = False,
    http: Annotated[
        bool, typer.Option("--api", help=f"Instead: the HTTP API; --only {','.join(api.PARTS)}.")
    ] = False,
    scrub: Annotated[int, typer.Option(help="Instead: a scrub of so many small chunks.", min=0)] = 0,
    one_host: Annotated[bool, typer.Option("--one-host", help="All sessions have one host.")] = False,
    seconds: Annotated[
        float | None,
        typer.Option(help="How long sessions are measured. Unset: 60; with max or --growth 20.", min=1),
    ] = None,
    rate: Annotated[str, typer.Option(help="Bits a second of each session.")] = "1.2Mbit",
    chunk_size: Annotated[
        str, typer.Option(help="Bytes of a chunk. Unset: CHUNK_SIZE_MB; with --sessions 1MiB; with max both.")
    ] = "",
    as_json: JsonFlag = False,
) -> None:
    """Measure this machine: the pipeline beside its best possible speed, and beside other programs."""
    if (
        sum(
            map(
                bool,
                (
                    many and not (with_hostile or http),
                    idle,
                    with_hostile,
                    finished and not http,
                    grow,
                    http,
                    scrub,
                ),
            )
        )
        > 1
    ):
        raise Misuse(
            "--sessions, --idle, --hostile, --finished, --growth, --api, --scrub: each measures alone",
            code="usage",
            hint="see lucid bench --help",
        )
    if chunk_size and with_hostile:
        raise Misuse("--hostile has chunks of 256 KiB; leave --chunk-size out", code="usage")
    chunk_bytes = _chunk_bytes(chunk_size)
    environment = with_chunk_size(own_environment(), chunk_bytes) if chunk_bytes else own_environment()
    settings = Installation.here(environment).settings
    measured_s = seconds or (PROBE_S if many == MAX or grow or http else MEASURED_S)
    load = Load(
        sessions=idle if idle else _number(many, with_hostile or http),
        seconds=measured_s,
        rate=0 if idle else parse_rate(rate),
        one_host=one_host,
        chunk_bytes=chunk_bytes or SMALL_CHUNK_BYTES,
    )
    if with_hostile:
        load = replace(load, sessions=load.sessions or HONEST)
        measure: Measurement = partial(hostile.measure, load=load, hostile_rate=hostile_rate)
        plan = Plan("hostile", HOSTILE_BYTES, measure, report.hostile)
    elif http:
        asked = api.Asked(
            load=replace(load, sessions=load.sessions or api.SESSIONS),
            finished=finished or LISTED,
            parts=api.parts(only),
        )
        size_bytes = parse_size(size, "--size") if size else API_BYTES
        needed = size_bytes + (asked.finished * FINISHED_BYTES if api.PAGES in asked.parts else 0)
        measure = partial(api.measure, asked=asked, note=output.note)
        plan = Plan("api", needed, measure, api_tables, INCOMPRESSIBLE, size_bytes)
    elif finished:
        hosts = 1 if one_host else scale.HOSTS
        measure = partial(scale.measure, count=finished, hosts=hosts, note=output.note)
        plan = Plan("finished", finished * FINISHED_BYTES, measure, report.finished)
    elif scrub:
        measure = partial(scrubbed.measure, count=scrub, note=output.note)
        needed = scrub * scrubbed.CHUNK_BYTES * 2 + SCRUB_SOURCE_BYTES
        plan = Plan("scrub", needed, measure, scrubbed.lines, source_bytes=SCRUB_SOURCE_BYTES)
    elif grow:
        measure = partial(growth.measure, load=load, note=output.note)
        plan = Plan("growth", LEAST_CHUNK_BYTES * growth.CHUNKS[-1], measure, report.growth)
    elif many == MAX:
        sizes = (chunk_bytes,) if chunk_bytes else (settings.chunk_bytes, SMALL_CHUNK_BYTES)
        measure = partial(measure_max, load=load, chunk_sizes=sizes, note=output.note)
        plan = Plan("max", 0, measure, report.most)
    elif load.sessions:
        needed = int(load.sessions * load.rate * (load.warm_s + load.play_s))
        measure = partial(sessions.measure, load=load)
        plan = Plan("sessions" if load.rate else "idle", needed, measure, report.load)
    else:
        wanted = rounds.contenders([name for name in only.split(",") if name])
        size_bytes = parse_size(size or "1GB", "--size")
        measure = partial(rounds.compare, wanted=wanted, runs=runs, note=output.note)
        plan = Plan("comparison", size_bytes, measure, report.comparison, data, size_bytes)
    result = _measured(plan, environment, settings)
    output.print_result(result, plan.lines(result), as_json)


def _number(many: str, with_hostile: bool) -> int:
    """The number of --sessions; 0: none is given, or the maximum is searched. Raises Misuse (usage)."""
    if not many or (many == MAX and not with_hostile):
        return 0
    if not (many.isascii() and many.isdigit() and int(many)):
        examples = "write 9" if with_hostile else f"write 200, or {MAX}"
        raise Misuse(f"--sessions {many} is no number of sessions; {examples}", code="usage")
    return int(many)


def _chunk_bytes(text: str) -> int:
    """The bytes of --chunk-size; 0: it is not given. Raises Misuse (bench.size)."""
    if not text:
        return 0
    size_bytes = parse_size(text, "--chunk-size")
    try:
        CHUNK_SIZE.kind.parse(f"{size_bytes / MIB:.6f}")
    except ValueError:
        raise Misuse(
            f"--chunk-size {text} is no size of a chunk; allowed: {CHUNK_SIZE.kind.allowed}",
            code="bench.size",
        ) from None
    return size_bytes


def _measured(plan: Plan, environment: dict[str, str], settings: Settings) -> dict[str, Any]:
    """Measure in a folder of its own; the figures, with machine, versions and settings."""
    before = machine(Installation.here().data.temp)

    async def work(folder: Path) -> dict[str, Any]:
        source = await asyncio.to_thread(make_source, plan.data, plan.source_bytes, folder)
        return await plan.measure(Task(source, folder, settings, environment))

    with own_folder(plan.needed_bytes) as folder:
        measured = attach.run(work(folder))
    frozen = settings.session().model_dump(mode="json")
    head = {"bench": plan.name, "machine": before, "versions": versions(), "settings": frozen}
    return {**head, **(measured if plan.name == "comparison" else {"results": measured})}


def own_environment() -> dict[str, str]:
    """Our environment without paths, NATS address and configuration file: they lead elsewhere."""
    elsewhere = {
        name
        for variable in VARIABLES
        if variable.field in NOT_OURS or variable.field.endswith("_path")
        for name in variable.names
    }
    return {name: text for name, text in os.environ.items() if name not in {*elsewhere, "LUCID_CONFIG"}}


@contextmanager
def own_folder(size_bytes: int) -> Iterator[Path]:
    """A folder on the data directory's disk, gone afterwards. Raises NoSpace (bench.space)."""
    where = Installation.here().data.temp
    needed, free = SPACE * size_bytes + SPACE_BYTES, shutil.disk_usage(where).free
    if free < needed:
        raise NoSpace(
            f"{where} has {size_text(free)} free, this measurement wants {size_text(needed)}",
            code="bench.space",
            hint="take a smaller --size, or set LUCID_DATA to another disk",
        )
    with tempfile.TemporaryDirectory(prefix="bench-", dir=where, ignore_cleanup_errors=True) as folder:
        yield Path(folder)
