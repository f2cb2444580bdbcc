"""The verb `lucid doctor`: checks whether this machine can run lucid, and names the repair if it cannot.

1. It changes nothing: the file that measures the disk has no name.
2. Every check stands alone: a failed check does not hide the next.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any

from schemas.config.values import size_text
from schemas.errors import FULL_ERRNOS, LucidError, Misuse, NoSpace, Unavailable, outcome
from schemas.ports import DataDir
from streams.cli import output
from streams.cli.output import JsonFlag
from streams.cli.verbs import doctor_link
from streams.cli.verbs.doctor_keys import copies_found, keys_found, mirror_found
from streams.cli.wait_start import require_services, running_url, server_url
from streams.roles.drivers import Installation, connected, encodes_h264, plain_swap, server_version
from streams.roles.health import check_stages

LEAST_FREE_BYTES = 2 << 30
FSYNC_TRIES, FSYNC_BYTES = 5, 4096
SLOW_FSYNC_MS = 50
WIDTH = 18
"""Columns before the text of a check."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report. `needed`: without it nothing runs."""

    name: str
    good: bool
    text: str
    hint: str = ""
    needed: bool = True


def doctor(as_json: JsonFlag = False) -> int:
    """Check whether this machine can run lucid, and name each repair."""
    here = Installation.here()
    checks: list[tuple[str, Callable[[], Check | None]]] = [
        ("python", _python),
        ("nats-server", _nats_server),
        ("ffmpeg", _ffmpeg),
        ("data", lambda: _space(here.data)),
        ("disk", lambda: _disk(here.data)),
        ("keys", lambda: _keys(here)),
        *([("mirror", lambda: _mirror(here))] if here.settings.keys_mirror else []),
        ("copies", lambda: _copies(here)),
        ("erasing", lambda: _erasing(here)),
        ("swap", _swap),
        ("nats", lambda: _nats(here)),
        ("recordings", lambda: _recordings(here)),
        ("system", lambda: _system(here)),
        ("stages", lambda: _stages(here)),
    ]
    found, status = [], 0
    for name, look in checks:
        try:
            check = look()
        except LucidError as error:
            check = Check(name, False, error.message, error.hint)
            status = status or outcome(error).exit_code
        if check is None:  # there is nothing to check
            continue
        found.append(check)
        if not check.good and check.needed:
            status = status or outcome(Unavailable("", code="doctor")).exit_code
    result = {"healthy": status == 0, "checks": [_json(check) for check in found]}
    output.print_result(result, chain.from_iterable(map(_lines, found)), as_json)
    return status


def _json(check: Check) -> dict[str, Any]:
    line = {"name": check.name, "good": check.good, "said": check.text, "hint": check.hint}
    return {**line, "needed": check.needed}


def _lines(check: Check) -> list[str]:
    sign = output.mark(check.good) if check.good or check.needed else "-"
    padding = " " * (2 - len(sign)) if sign.isascii() else " "
    hint = f"; {check.hint}" if check.hint else ""
    head = f"  {sign}{padding} {check.name:<12} "
    return output.wrapped(f"{head}{check.text}{hint}", " " * WIDTH)


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
    with _unnamed_file(data.path) as file:
        file.write(bytes(FSYNC_BYTES))
    free, where = data.free_bytes(), output.short_path(data.path)
    good = free >= LEAST_FREE_BYTES
    hint = "" if good else f"free {size_text(LEAST_FREE_BYTES)}, or set LUCID_DATA"
    return Check("data", good, f"{where}, {size_text(free)} free", hint)


def _disk(data: DataDir) -> Check:
    """How long a durable write takes: every fragment waits for one."""
    times = []
    try:
        with _unnamed_file(data.path) as file:
            for _ in range(FSYNC_TRIES):
                began_s = time.perf_counter()
                file.write(bytes(FSYNC_BYTES))
                os.fsync(file.fileno())
                times.append((time.perf_counter() - began_s) * 1000)
    except LucidError:
        return Check("disk", False, "not measured: see data", needed=False)
    typical = sorted(times)[len(times) // 2]
    return Check("disk", typical < SLOW_FSYNC_MS, f"fsync in {typical:.1f} ms", needed=False)


@contextmanager
def _unnamed_file(path: Path) -> Iterator[IO[bytes]]:
    """A file without a name in the folder, or in its nearest parent that exists.

    Raises Misuse (config.path), NoSpace (disk.full), also for errors of the block.
    """
    nearest = path
    while not os.path.exists(nearest):  # Path.exists raises without permission
        nearest = nearest.parent
    try:
        with tempfile.TemporaryFile(dir=nearest, buffering=0) as file:
            yield file
    except OSError as error:
        text = f"{output.short_path(path)} cannot be written: {output.short_path(nearest)}: {error.strerror}"
        if error.errno in FULL_ERRNOS:
            raise NoSpace(text, code="disk.full", hint="free some, or set LUCID_DATA") from None
        raise Misuse(text, code="config.path", hint="set LUCID_DATA to another folder") from None


def _keys(here: Installation) -> Check:
    if here.settings.nats_url and not here.key_folder.installation():
        return Check("keys", False, "none here: services need them, recorders do not", needed=False)
    return Check("keys", True, asyncio.run(keys_found(here)))


def _nats(here: Installation) -> Check:
    url = running_url(here)
    if url is None:
        return Check("nats", False, "not running", needed=False)

    async def look() -> tuple[str, str]:
        async with connected(url, "lucid-doctor") as jet:
            return await doctor_link.look(jet, here.settings.nats_storage_bytes, here.settings.shards)

    text, cure = asyncio.run(look())
    return Check("nats", not cure, text, cure)


def _recordings(here: Installation) -> Check | None:
    """How full the recording streams are; None: there are none now."""
    url = running_url(here)
    if url is None:
        return None

    async def look() -> tuple[str, str] | None:
        async with connected(url, "lucid-doctor") as jet:
            return await doctor_link.recordings(jet)

    found = asyncio.run(look())
    return found and Check("recordings", not found[1], *found, needed=False)


def _copies(here: Installation) -> Check:
    text, cure = asyncio.run(copies_found(here))
    return Check("copies", not cure, text, f"make one: {cure}" if cure else "", needed=False)


def _mirror(here: Installation) -> Check:
    text, cure = mirror_found(here)
    return Check("mirror", not cure, text, cure, needed=False)


def _erasing(here: Installation) -> Check:
    why = here.key_folder.unproven()
    text = f"not proven: {why}; docs/keys.md" if why else "overwritten keys are gone from the disk"
    return Check("erasing", not why, text, needed=False)


def _swap() -> Check:
    plain = ", ".join(plain_swap())
    text = f"keys in memory may be written in the clear to {plain}" if plain else "none in the clear"
    return Check("swap", not plain, text, "encrypt it, or swapoff" if plain else "", needed=False)


def _system(here: Installation) -> Check:
    async def look() -> None:
        async with connected(server_url(here), "lucid-doctor") as jet:
            await require_services(jet)

    try:
        asyncio.run(look())
    except Unavailable as error:
        if error.code != "server.absent":
            raise
        return Check("system", False, "not running", "start it: lucid up", needed=False)
    return Check("system", True, "running")


def _stages(here: Installation) -> Check | None:
    """Whether a stage stands still while chunks wait for it; None: no conductor says so, see system."""
    url = running_url(here)
    if url is None:
        return None

    async def look() -> None:
        async with connected(url, "lucid-doctor") as jet:
            await check_stages(jet)

    try:
        asyncio.run(look())
    except Unavailable as error:
        known = error.code in ("stage.stalled", "stage.unseen")
        return Check("stages", False, error.message, error.hint) if known else None
    return Check("stages", True, "none stands still")
