"""`lucid up` as a process that a test talks to."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.machine.waiting import PATIENCE_S

Lucid = Any
"""The `Program` of conftest.py."""


def up(lucid: Lucid, data: Path, **environment: str) -> "subprocess.Popen[str]":
    """A running system; returns when it says so."""
    process: subprocess.Popen[str] = lucid.start("up", "--json", data=data, **environment)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    assert json.loads(line)["status"] == "running"
    return process


def end(process: "subprocess.Popen[str]") -> int:
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE_S)
    return process.returncode


def met(what: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end_s
        time.sleep(0.1)
