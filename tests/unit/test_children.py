"""Supervision of real processes."""

import asyncio
import errno
import os
import signal
import sys
from pathlib import Path

import pytest

from infra.processes import children
from infra.processes.children import Child
from tests.support.machine.waiting import until

PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
print(child.pid, flush=True)
time.sleep(600)
"""
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(1, flush=True)
time.sleep(600)
"""
CHILD = """
import os, time
from infra.processes.children import die_with
die_with(os.getppid())
print("ready", flush=True)
time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the second: it ends while it is read
        return False


async def test_a_child_that_is_killed_comes_back(tmp_path: Path) -> None:
    """Breaks: one crash of the worker, and nothing is recorded until someone looks."""
    child = Child("sleeper", [sys.executable, "-c", "import time; time.sleep(600)"], {}, tmp_path / "log")
    await child.start()
    first = child.pid
    os.kill(first, signal.SIGKILL)
    await until(lambda: child.starts == 2)
    assert alive(child.pid)
    assert child.pid != first
    second = child.pid
    await child.stop()
    await child.stop()
    assert not alive(second)
    assert child.starts == 2


async def test_a_start_that_fails_is_told_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Breaks: on a full disk a child stays away, and nothing says why."""
    answers = iter([None, OSError(errno.ENOSPC, "No space left on device"), None])

    def before() -> None:
        if (error := next(answers)) is not None:
            raise error

    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    child = Child("sleeper", command, {}, tmp_path / "log", before=before)
    await child.start()
    os.kill(child.pid, signal.SIGKILL)
    await until(lambda: child.starts == 2)
    await child.stop()
    told = [line for line in caplog.messages if line.startswith("child_not_started")]
    assert told == ['child_not_started name=sleeper error="[Errno 28] No space left on device"']


async def test_a_child_that_does_not_listen_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: `lucid up` hangs at its end for ever."""
    monkeypatch.setattr(children, "STOP_S", 0.3)
    child = Child("deaf", [sys.executable, "-c", DEAF], {}, tmp_path / "log")
    await child.start()
    await until(lambda: (tmp_path / "log").read_text() != "")
    pid = child.pid
    await child.stop()
    assert not alive(pid)


async def test_a_child_dies_with_its_parent() -> None:
    """Breaks: an old worker goes on with a directory that is no longer its own."""
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT, CHILD), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert await parent.stdout.readline() == b"ready\n"
    assert alive(pid)
    parent.kill()
    await parent.wait()
    await until(lambda: not alive(pid))
