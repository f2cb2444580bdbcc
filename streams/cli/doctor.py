"""Owns `lucid doctor`: whether this machine can run lucid, and what to do where it cannot.

1. It changes nothing: what it writes to measure the disk has no name.
2. Every check stands alone: one that fails does not hide the next.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from schemas.errors import LucidError, Misuse, Unavailable, outcome
from schemas.ports import DataDir
from streams.cli import output
from streams.cli.attach import server_url
from streams.cli.output import JsonFlag
from streams.wiring import Installation, connected, encodes_h264, server_version

LEAST_FREE_BYTES = 2 << 30
FSYNC_TRIES, FSYNC_BYTES = 5, 4096
SLOW_FSYNC_MS = 50


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report. `needed`: without it nothing runs."""

    name: str
    good: bool
    said: str
    hint: str = ""
    needed: bool = True


def doctor(as_json: JsonFlag = False) -> int:
    """Say whether this machine can run lucid, and what to do."""
    here = Installation.here()
    checks: list[tuple[str, Callable[[], Check]]] = [
        ("python", _python),
        ("nats-server", _nats_server),
        ("ffmpeg", _ffmpeg),
        ("data", lambda: _space(here.data)),
        ("disk", lambda: _disk(here.data)),
        ("system", lambda: _system(here)),
    ]
    found, status = [], 0
    for name, look in checks:
        try:
            check = look()
        except LucidError as error:
            check = Check(name, False, error.message, error.hint)
            status = status or outcome(error).exit_code
        found.append(check)
        if not check.good and check.needed:
            status = status or outcome(Unavailable("", code="doctor")).exit_code
    if as_json:
        output.emit({"healthy": status == 0, "checks": [asdict(check) for check in found]})
    else:
        for check in found:
            output.say(_line(check))
    return status


def _line(check: Check) -> str:
    sign = output.mark(check.good) if check.good or check.needed else "-"
    padding = " " * (2 - len(sign)) if sign.isascii() else " "
    hint = f"; {check.hint}" if check.hint else ""
    return f"  {sign}{padding} {check.name:<12} {check.said}{hint}"


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check("python", sys.version_info >= (3, 11), version)


def _nats_server() -> Check:
    version = server_version()
    return Check("nats-server", bool(version), version)


def _ffmpeg() -> Check:
    good = encodes_h264()
    return Check("ffmpeg", good, "H.264 by libx264" if good else "it has no libx264", needed=False)


def _space(data: DataDir) -> Check:
    _nearest(data.path)
    free, where = data.free_bytes(), output.home(data.path)
    good = free >= LEAST_FREE_BYTES
    hint = "" if good else f"free {output.size(LEAST_FREE_BYTES)}, or set LUCID_DATA"
    return Check("data", good, f"{where}, {output.size(free)} free", hint)


def _disk(data: DataDir) -> Check:
    """How long a durable write takes: every fragment waits for one."""
    times = []
    with tempfile.TemporaryFile(dir=_nearest(data.path), buffering=0) as file:
        for _ in range(FSYNC_TRIES):
            began_s = time.perf_counter()
            file.write(bytes(FSYNC_BYTES))
            os.fsync(file.fileno())
            times.append((time.perf_counter() - began_s) * 1000)
    typical = sorted(times)[len(times) // 2]
    return Check("disk", typical < SLOW_FSYNC_MS, f"fsync in {typical:.1f} ms", needed=False)


def _nearest(path: Path) -> Path:
    """The folder, or the one in which it will be made. Raises Misuse (config.path)."""
    nearest = path
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise Misuse(
            f"{output.home(path)} cannot be made: {output.home(nearest)} is no folder of yours",
            code="config.path",
            hint="set LUCID_DATA to another folder",
        )
    return nearest


def _system(here: Installation) -> Check:
    async def look() -> str:
        async with connected(await server_url(here), "lucid-doctor"):
            return "running"

    try:
        return Check("system", True, asyncio.run(look()))
    except Unavailable as error:
        if error.code != "server.absent":
            raise
        return Check("system", False, "not running", "start it: lucid up", needed=False)
