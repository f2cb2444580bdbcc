"""A system that a test starts and ends through the program."""

import asyncio
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infra.disk.data_dir import DataDir
from schemas import subjects
from schemas.format.fragment import Kind, parse
from streams.event_store.recordings import Recordings
from streams.roles.drivers import connected
from tests.support.machine.waiting import PATIENCE_S

Lucid = Any
"""The `Program` of conftest.py."""


def up(lucid: Lucid, data: Path, **environment: str) -> "subprocess.Popen[str]":
    """A running system; returns when it says so."""
    process: subprocess.Popen[str] = lucid.start("up", "--json", data=data, **environment)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["status"] == "running"
    return process


def end(process: "subprocess.Popen[str]") -> int:
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE_S)
    return process.returncode


def running(lucid: Lucid, data: Path) -> Iterator[Path]:
    """A system that runs on `data` until this is asked for more, and then ends in order."""
    process = up(lucid, data)
    yield data
    assert end(process) == 0
    assert not (data / "run.json").exists()


def ok(lucid: Lucid, *arguments: str, data: Path, **more: Any) -> Any:
    """The JSON result of a verb that succeeds."""
    said = lucid(*arguments, "--json", data=data, **more)
    assert said.returncode == 0, said.stdout + said.stderr
    return json.loads(said.stdout)


def until(lucid: Lucid, data: Path, session: str, state: str) -> Any:
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        said = lucid("sessions", "show", session, "--json", data=data)
        if said.returncode == 0 and json.loads(said.stdout)["state"] == state:
            return json.loads(said.stdout)
        assert time.monotonic() < deadline_s, f"{session} did not become {state}: {said.stdout}"
        time.sleep(0.3)


def encoded(data: Path, session: str) -> None:
    """Return when the stream holds pictures of a live recording: the head of its film, and more."""

    async def pictures() -> int:
        async with connected(DataDir(data).read_run()["nats_url"], "test") as jet:
            found = (await Recordings.open(jet)).read_all(subjects.recording_by_anyone(session))
            return [parse(message.data).header.kind async for message in found].count(Kind.DATA)

    deadline_s = time.monotonic() + PATIENCE_S
    while asyncio.run(pictures()) < 2:
        assert time.monotonic() < deadline_s, session
        time.sleep(0.1)
