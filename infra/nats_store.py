"""Owns who may run a nats-server on a store directory: one at a time, and no left-over beside it.

1. The lock is inherited by the server itself, so that it is held as long as the server lives, even when
   its supervisor was killed. Two servers on one store would start without complaint.
2. A server whose supervisor is gone is a left-over and is ended; one whose supervisor lives is not ours.
"""

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
from pathlib import Path

from infra.datadir import write_private
from schemas.errors import Unavailable

CONFIG, NOTE, LOCK = "server.conf", "server.json", "lock"
POLL_S = 0.05

_log = logging.getLogger(__name__)


async def take_store(data: Path, timeout_s: float) -> int:
    """Return a locked descriptor, to be inherited by the server; raise Unavailable (nats.locked)."""
    fd = os.open(data / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline_s = asyncio.get_running_loop().time() + timeout_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if not _end_left_over(data) or asyncio.get_running_loop().time() > deadline_s:
                os.close(fd)
                raise Unavailable(
                    f"another nats-server runs on {data}", code="nats.locked", hint="stop it first"
                ) from None
        await asyncio.sleep(POLL_S)


def note_server(data: Path, pid: int) -> None:
    """Remember which process serves the store, and under whom."""
    write_private(data / NOTE, json.dumps({"pid": pid, "supervisor": os.getpid()}).encode())


def give_store(data: Path, fd: int) -> None:
    """Give up what `take_store` returned. The server has ended before."""
    (data / NOTE).unlink(missing_ok=True)
    os.close(fd)


def _end_left_over(data: Path) -> bool:
    """Signal the server that the lock's last holder started; False when that holder still lives."""
    try:
        note = json.loads((data / NOTE).read_bytes())
        pid, supervisor = int(note["pid"]), int(note["supervisor"])
    except (OSError, ValueError, KeyError):
        return False
    if supervisor == os.getpid() or _alive(supervisor):
        return False
    if str(data / CONFIG) in _command_line(pid):
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


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
