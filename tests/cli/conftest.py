"""The program `lucid` as a child process, in a data directory of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import DEVNULL
from typing import IO

import pytest


class Program:
    """Call it to run to the end; `start` it to talk to it."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[str]] = []

    def end(self, since: int) -> None:
        """Kill what was started after the first `since` and still runs."""
        for process in self.started[since:]:
            if process.poll() is None:
                process.kill()
                process.communicate()

    def start(
        self,
        *arguments: str,
        data: Path,
        cwd: Path | None = None,
        stdin: int | IO[bytes] = DEVNULL,
        stdout: int | IO[str] = subprocess.PIPE,
        **environment: str,
    ) -> "subprocess.Popen[str]":
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("LUCID_", "NATS_", "UV_RUN_", "JWT_"))
        }
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "streams.cli.main", *arguments],
            env={**clean, "LUCID_DATA": str(data), "NO_COLOR": "1", **environment},
            cwd=cwd or data.parent,
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def __call__(
        self,
        *arguments: str,
        data: Path,
        cwd: Path | None = None,
        seconds: float = 120,
        stdin: int | IO[bytes] = DEVNULL,
        **environment: str,
    ) -> "subprocess.CompletedProcess[str]":
        with self.start(*arguments, data=data, cwd=cwd, stdin=stdin, **environment) as process:
            try:
                out, err = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                process.terminate()
                raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture(scope="session")
def lucid() -> Iterator[Program]:
    """The program; nothing that was started outlives the tests."""
    program = Program()
    yield program
    program.end(0)


@pytest.fixture(autouse=True)
def _nothing_outlives_its_test(lucid: Program) -> Iterator[None]:
    before = len(lucid.started)
    yield
    lucid.end(before)
