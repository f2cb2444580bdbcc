"""Verbs beside a system that restarts: real processes, one data directory."""

import json
import os
import signal
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from infra.disk.data_dir import DataDir
from tests.support.machine.waiting import PATIENCE_S
from tests.support.program.up_process import Lucid, end, met, up


def blocks(count: int) -> bytes:
    return b"".join(b"%06d " % number * 5_000 for number in range(count))


def bound(held: socket.socket, port: int) -> bool:
    try:
        held.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("how", ["stopped", "killed", "stopped, and its port is taken"])
def test_a_recording_goes_on_over_a_restart_of_the_whole_system(
    lucid: Lucid, tmp_path: Path, how: str
) -> None:
    """Breaks: every recorder is stranded by an update of the system, and its last minutes are lost."""
    data, body = tmp_path / "data", blocks(60)
    third = len(body) // 3
    process = up(lucid, data)
    recording = lucid.start(
        *("record", "--input", "-", "--session", "long-1", "--json"),
        data=data,
        stdin=subprocess.PIPE,
        CHUNK_SIZE_MB="0.25",
    )
    feed = recording.stdin.buffer
    feed.write(body[:third])
    feed.flush()
    met(lambda: lucid("sessions", "show", "long-1", data=data).returncode == 0)
    with ExitStack() as stack:
        port = json.loads((data / "nats" / "access.json").read_bytes())["port"]
        if how == "killed":
            process.kill()
            process.communicate()
        else:
            assert end(process) == 0
        if how.endswith("taken"):
            other = stack.enter_context(socket.socket())
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            met(lambda: bound(other, port))
            other.listen()
        feed.write(body[third : 2 * third])
        feed.flush()
        time.sleep(2)
        assert recording.poll() is None
        process = up(lucid, data)
        again = json.loads((data / "nats" / "access.json").read_bytes())["port"]
        assert (again == port) != how.endswith("taken")
    feed.write(body[2 * third :])
    out, said = recording.communicate(timeout=PATIENCE_S)
    assert recording.returncode == 0, out + said
    assert json.loads(out)["sealed"] is True
    assert json.loads(out)["plain"] == len(body)
    verified = json.loads(lucid("verify", "long-1", "--open", "--strict", "--json", data=data).stdout)
    assert (verified["verdict"], verified["gaps"]) == ("true", 0)
    assert lucid("export", "long-1", "--out", str(tmp_path / "back"), data=data).returncode == 0
    assert (tmp_path / "back").read_bytes() == body
    assert end(process) == 0


def test_a_verb_waits_for_a_system_that_is_starting_and_says_so(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: a recorder that a service manager starts beside `up` fails at once, and records nothing."""
    data = tmp_path / "data"
    (tmp_path / "source").write_bytes(b"x" * 1000)
    early = lucid.start(
        *("record", "--input", str(tmp_path / "source"), "--session", "early-1", "--json"),
        *("--wait-start", "2m"),
        data=data,
    )
    time.sleep(3)
    assert early.poll() is None, "who says how long to wait is taken at his word"
    process = lucid.start("up", "--json", data=data)
    met(DataDir(data).is_owned)
    now = lucid("sessions", "list", "--wait-start", "0", data=data)
    if not (data / "run.json").exists():
        assert (now.returncode, "[server.starting]" in now.stderr) == (7, True), now.stderr
    waited = lucid("record", "--input", str(tmp_path / "source"), "--session", "late-1", data=data)
    assert waited.returncode == 0, waited.stderr
    out, said = early.communicate(timeout=PATIENCE_S)
    assert early.returncode == 0, said
    assert "waiting up to " in said
    assert "\x1b" not in said
    assert json.loads(out)["sealed"] is True
    assert json.loads(process.stdout.readline())["status"] == "running"
    assert end(process) == 0


def test_a_list_waits_and_a_recording_begins_while_the_services_restart(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: one crash of the conductor costs recordings that begin then, and a list ends with a riddle."""
    data = tmp_path / "data"
    (tmp_path / "source").write_bytes(b"x" * 1000)
    process = up(lucid, data)
    for child in psutil.Process(process.pid).children(recursive=True):
        if "conductor" in child.cmdline():
            os.kill(child.pid, signal.SIGKILL)
    listed = lucid("sessions", "list", "--json", data=data)
    assert (listed.returncode, json.loads(listed.stdout)["sessions"]) == (0, []), listed.stderr
    said = lucid("record", "--input", str(tmp_path / "source"), "--session", "now-1", "--json", data=data)
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["sealed"] is True
    assert end(process) == 0


@pytest.mark.parametrize("given", ["soon", "-1", "2y", "999d"])
def test_a_wait_that_is_no_time_is_refused(lucid: Lucid, tmp_path: Path, given: str) -> None:
    """Breaks: a mistyped time is taken for another one."""
    said = lucid("sessions", "list", f"--wait-start={given}", data=tmp_path)
    assert (said.returncode, "[usage]" in said.stderr) == (2, True), said.stderr


def test_nothing_that_runs_is_said_at_once_and_what_may_come_is_waited_for(
    lucid: Lucid, tmp_path: Path
) -> None:
    """Breaks: a person who forgot `lucid up` looks at a verb that does nothing for a minute."""
    began_s = time.monotonic()
    absent = lucid("sessions", "list", data=tmp_path)
    assert (absent.returncode, "[server.absent]" in absent.stderr) == (7, True), absent.stderr
    assert "waiting" not in absent.stderr
    assert time.monotonic() - began_s < 50
    elsewhere = lucid(
        *("sessions", "list", "--wait-start", "2"), data=tmp_path, NATS_URL="nats://u:SECRET@127.0.0.1:1"
    )
    assert (elsewhere.returncode, "[nats.unreachable]" in elsewhere.stderr) == (7, True), elsewhere.stderr
    assert "lucid: waiting up to " in elsewhere.stderr
    assert "SECRET" not in elsewhere.stderr
    said = lucid("sessions", "list", data=tmp_path, NATS_URL="nats://127.0.0.1:1", WAIT_START="0")
    assert (said.returncode, "waiting" in said.stderr) == (7, False), said.stderr
