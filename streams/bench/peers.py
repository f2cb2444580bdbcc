"""Measures other programs beside the pipeline, where they are installed: restic, kopia, and zstd with age.

1. restic and kopia make one backup of the source as one file into a new repository on the same disk, as each
   does by default. Making the repository is not timed.
2. zstd and age are the line of a system administrator: one file, compressed and encrypted, then synced.
3. They encrypt and compress as we do; they record no stream, sign nothing and keep no order. Their figure is
   the speed that people are used to.
"""

import asyncio
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from schemas.errors import Unavailable
from streams.bench.contender import Contender, Measure, Task, check_digest, digest_of
from streams.bench.meter import Neighbours, Used

PASSWORD = "bench"
VERSION = re.compile(r"\d+\.\d+(?:\.\d+)?")


class Peer(NamedTuple):
    """Command lines of one program, with the places {repo}, {cache} and {file}.

    A shell gets the places as $1, $2: a path may have spaces.
    """

    init: str
    backup: str
    restore: str
    """To standard output, or to the file {cache}.restored."""
    version: str
    programs: tuple[str, ...] = ()
    """The programs that it needs; empty: the one of its own name."""
    environment: Mapping[str, str] = {}
    """Variables that it wants, with the same places."""


PEERS = {
    "restic": Peer(
        "restic -r {repo} --cache-dir {cache} init",
        "restic -r {repo} --cache-dir {cache} backup {file}",
        "restic -r {repo} --cache-dir {cache} dump latest {file}",
        "restic version",
        environment={"RESTIC_PASSWORD": PASSWORD},
    ),
    "kopia": Peer(
        "kopia --config-file {cache}.config repository create filesystem --path {repo}",
        "kopia --config-file {cache}.config snapshot create {file}",
        "kopia --config-file {cache}.config restore {file} {cache}.restored",
        "kopia --version",
        environment={
            "KOPIA_PASSWORD": PASSWORD,
            "KOPIA_CHECK_FOR_UPDATES": "false",
            "KOPIA_CACHE_DIRECTORY": "{cache}.kopia",
        },
    ),
    "zstd-age": Peer(
        "age-keygen -o {cache}.key",
        'sh -c \'zstd -3 -T0 -q -c "$1" | age -e -i "$2" -o "$3" && sync "$3" "$4"\' '
        "zstd-age {file} {cache}.key {repo}/it {repo}",
        'sh -c \'age -d -i "$1" "$2" | zstd -d -q -c\' zstd-age {cache}.key {repo}/it',
        "age --version",
        ("zstd", "age", "age-keygen", "sync"),
    ),
}


def installed() -> dict[str, Contender]:
    """The programs that are installed here, by name."""
    return {name: _contender(name) for name in PEERS if not missing(name)}


def missing(name: str) -> list[str]:
    """The programs of a peer that are not installed here."""
    return [program for program in PEERS[name].programs or (name,) if shutil.which(program) is None]


def version(name: str) -> str:
    text = subprocess.run(
        shlex.split(PEERS[name].version), capture_output=True, text=True, check=False
    ).stdout
    found = VERSION.search(text)
    return found[0] if found else "unknown"


def _contender(name: str) -> Contender:
    return lambda task: _measure(name, task)


async def _measure(name: str, task: Task) -> Measure:
    peer, repo = PEERS[name], task.folder / "repository"
    repo.mkdir()
    places = {"repo": str(repo), "cache": str(task.folder / "cache"), "file": str(task.source.path)}
    own = {variable: text.format_map(places) for variable, text in peer.environment.items()}
    environment = {**task.environment, **own}
    await _run(peer.init, places, environment, task.folder)
    began_s, neighbours = time.time(), Neighbours()
    used = await _run(peer.backup, places, environment, task.folder)
    seconds, others = time.time() - began_s, neighbours.share([used])
    stored = sum(path.stat().st_size for path in repo.rglob("*") if path.is_file())
    await _run(peer.restore, places, environment, task.folder)
    digest = await asyncio.to_thread(digest_of, _restored(places, task.folder))
    check_digest(digest, task.source, name)
    return Measure(seconds, 0, stored, {name: used}, others)


async def _run(command: str, places: Mapping[str, str], environment: Mapping[str, str], folder: Path) -> Used:
    """Run to the end, its output in folder/out. Raises Unavailable (bench.peer)."""
    words = [word.format_map(places) for word in shlex.split(command)]
    process = _started(words, environment, folder)
    ending = asyncio.ensure_future(asyncio.to_thread(os.wait4, process.pid, 0))
    try:
        _, status, used = await asyncio.shield(ending)
    except asyncio.CancelledError:
        os.kill(process.pid, signal.SIGKILL)  # it may try for ever once its folder is gone
        await ending
        raise
    finally:
        process.returncode = 0  # wait4 above has reaped it
    if status:
        last = _tail(folder / "log")
        raise Unavailable(f"{' '.join(words[:1] + words[-2:])} failed: {last}", code="bench.peer")
    return Used(used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def _started(words: Sequence[str], environment: Mapping[str, str], folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "out").open("wb") as out, (folder / "log").open("wb") as log:
        return subprocess.Popen(
            words, env=dict(environment), stdin=subprocess.DEVNULL, stdout=out, stderr=log
        )


def _tail(log: Path) -> str:
    return log.read_text(errors="replace").strip()[-300:]


def _restored(places: Mapping[str, str], folder: Path) -> Path:
    """The file that `restore` wrote: its own, or standard output."""
    restored = Path(f"{places['cache']}.restored")
    return restored if restored.exists() else folder / "out"
