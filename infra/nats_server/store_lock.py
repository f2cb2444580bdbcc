"""Locks a store directory for one nats-server, and ends a left-over server on it.

1. The server itself inherits the lock on the folder (infra.disk.folder_lock), so the lock lasts as long as
   the server does, even if its supervisor was killed. Two servers on one store would both start without an
   error.
2. A server without its supervisor is a left-over and is ended. A server with a living supervisor stays.
3. A supervisor is its pid and its start time: another process may have the pid alone by now.
"""

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path

from infra.disk.durable import write_private
from infra.disk.folder_lock import lock_folder
from infra.nats_server.files import CONFIG
from schemas.config.logs import logger
from schemas.errors import Unavailable

NOTE = "server.json"
POLL_S = 0.05

_log = logger(__name__)


async def take_store(data: Path, timeout_s: float) -> int:
    """Return a locked descriptor for the server to inherit. Raises Unavailable (nats.locked)."""
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
    """Store the pid of the server, and its supervisor."""
    note = {"pid": pid, "supervisor": os.getpid(), "began": _began(os.getpid())}
    write_private(data / NOTE, json.dumps(note).encode())


def release_store(fd: int) -> None:
    """Close the descriptor of `take_store`. The server must have ended before."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(NOTE, dir_fd=fd)  # by the descriptor: another folder may have this name now
    os.close(fd)


def _end_left_over(data: Path) -> bool:
    """End the server of the last supervisor; False: that supervisor still lives."""
    try:
        note = json.loads((data / NOTE).read_bytes())
        pid, supervisor, began = int(note["pid"]), int(note["supervisor"]), int(note["began"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if _alive(supervisor) and _began(supervisor) == began:
        return False
    if os.fsencode(data / CONFIG) in _arguments(pid):
        _log.warning("nats_left_over_ended", pid=pid)
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
    with contextlib.suppress(OSError):  # a zombie counts as dead
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def _began(pid: int) -> int:
    """Return the start of the process, in ticks since boot; 0: unknown."""
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
    """Return whether a server has stored streams in its folder."""
    return any((folder / "store").glob("jetstream/*/streams/*"))
