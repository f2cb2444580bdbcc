"""A real server of MongoDB's wire protocol: SecantusDB, a process of its own on loopback."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from tests.support.machine.absent import absent
from tests.support.machine.waiting import PATIENCE_S
from tests.support.servers.ports import held_ports


class Secantus(NamedTuple):
    """A server that answers. url: of its databases, without a name at its end."""

    url: str
    folder: Path
    pid: int


@contextlib.contextmanager
def secantus(folder: Path, port: int = 0) -> Iterator[Secantus]:
    """A server over one folder, ended after the block."""
    if find_spec("secantus") is None:
        absent("SecantusDB", "uv sync --group real")
    with contextlib.ExitStack() as stack:
        port = port or stack.enter_context(held_ports(1))[0]
        command = (sys.executable, "-P", "-c", "from secantus.cli import main; main()", "--host", "127.0.0.1")
        more = ("--port", str(port), "--storage-path", str(folder), "--log-level", "ERROR")
        process = subprocess.Popen((*command, *more), stdout=subprocess.DEVNULL, cwd=folder.parent)
        stack.callback(_end, process)
        url = f"mongodb://127.0.0.1:{port}"
        _until_answered(url, process)
        yield Secantus(url, folder, process.pid)


def _until_answered(url: str, process: "subprocess.Popen[bytes]") -> None:
    end_s = time.monotonic() + PATIENCE_S
    with MongoClient(url, serverSelectionTimeoutMS=500) as client:
        while True:
            try:
                client.admin.command("ping")
                return
            except PyMongoError:
                assert process.poll() is None, "SecantusDB ended"
                assert time.monotonic() < end_s, "SecantusDB does not answer"


def _end(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
