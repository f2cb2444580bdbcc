"""Lets one nats-server at a time run on a store directory, and ends a left-over beside it.

1. The server itself inherits the lock on the folder (disk/folder_lock.py), so that it is held as long as the
   server lives, even when its supervisor was killed. Two servers on one store would start without complaint.
2. A server whose supervisor is gone is a left-over and is ended; one whose supervisor lives is not ours.
   A supervisor is a pid and the time when that process began: the pid alone may be somebody else's now.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
from pathlib import Path

from infra.disk.durable import write_private
from infra.disk.folder_lock import lock_folder
from infra.nats_server.files import CONFIG
from schemas.errors import Unavailable

NOTE = "server.json"
POLL_S = 0.05

_log = logging.getLogger(__name__)


async def take_store(data: Path, timeout_s: float) -> int:
    """Return a locked descriptor, to be inherited by the server; raise Unavailable (nats.locked)."""
    deadline_s = asyncio.get_running_loop().time() + timeout_s
    while True:
        try:
            return lock_folder(data)
        except BlockingIOError:
            if not _end_left_over(data) or asyncio.get_running_loop().time() > deadline_s:
                raise Unavailable(
                    f"another nats-server runs on {data}", code="nats.locked", hint="stop it first"
                ) from None
        await asyncio.sleep(POLL_S)


def note_server(data: Path, pid: int) -> None:
    """Remember which process serves the store, and under whom."""
    note = {"pid": pid, "supervisor": os.getpid(), "began": _began(os.getpid())}
    write_private(data / NOTE, json.dumps(note).encode())


def give_store(fd: int) -> None:
    """Give up what `take_store` returned. The server has ended before."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(NOTE, dir_fd=fd)  # by the descriptor: another folder may have this name now
    os.close(fd)


def _end_left_over(data: Path) -> bool:
    """Signal the server that the lock's last holder started; False when that holder still lives."""
    try:
        note = json.loads((data / NOTE).read_bytes())
        pid, supervisor, began = int(note["pid"]), int(note["supervisor"]), int(note["began"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if _alive(supervisor) and _began(supervisor) == began:
        return False
    if os.fsencode(data / CONFIG) in _arguments(pid):
        _log.warning("nats_left_over_ended pid=%d", pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    return True


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with contextlib.suppress(OSError):  # dead, but nobody has asked for its exit code yet
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def _began(pid: int) -> int:
    """When the process began, in ticks since the machine did; 0 where that cannot be told."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return 0


def _arguments(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def has_streams(folder: Path) -> bool:
    """Whether a server has kept streams below its folder."""
    return any((folder / "store").glob("jetstream/*/streams/*"))
