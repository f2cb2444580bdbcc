"""Real recordings through the real program: `lucid up` in one process, verbs in others."""

import hashlib
import json
import os
import random
import re
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from infra.blobs.disk import TEMPORARY
from infra.disk.data_dir import DataDir
from schemas.config.settings import Settings
from schemas.errors import Unavailable
from streams.roles import local_system as supervisor
from streams.roles.drivers import Installation
from tests.support.machine.waiting import PATIENCE_S
from tests.support.program.running import Lucid, encoded, end, ok, running, until, up


@pytest.fixture(scope="module")
def data(lucid: Lucid, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data directory of a system that runs for all tests of this file."""
    yield from running(lucid, tmp_path_factory.mktemp("system") / "data")


def children_of(process: "subprocess.Popen[str]") -> dict[str, int]:
    """Pids of the system's own processes, by role; one that is just being started has none yet."""
    found = {}
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.Error):
            words = child.cmdline()
            if "serve" in words:
                found[words[words.index("serve") + 1]] = child.pid
            elif words and "nats-server" in words[0]:
                found["nats"] = child.pid
    return found


def shape(lines: list[str]) -> list[str]:
    """Lines without what differs from run to run: digests, numbers, paths, plurals, columns."""
    text = re.sub(r"( [|·]|\n)\s*data in \S+", " | data in PATH", "\n".join(lines)).replace("·", "|")
    text = re.sub(r"\b[0-9a-f]{4}( [0-9a-f]{4})+\b", "DIGEST", text)
    text = re.sub(r"\b[0-9.]+( [kM]B)?\b", "N", text).replace("leaves", "leaf").replace("chunks", "chunk")
    return [" ".join(line.split()).replace("uv run lucid", "lucid") for line in text.splitlines()]


def test_the_demo_leaves_true_evidence_and_nothing_running(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: the first command that anyone types, or what the README says of it."""
    data, here = tmp_path / "data", tmp_path / "here"
    here.mkdir()
    said = lucid("demo", "--seconds", "4", data=data, cwd=here)
    assert said.returncode == 0, said.stderr
    assert said.stderr == ""
    lines = said.stdout.splitlines()
    rows = lines[next(at for at, line in enumerate(lines) if line.startswith("  record")) :]
    assert all(len(line) <= 80 for line in rows)
    assert [line.split()[0] for line in rows[:7]] == [
        *("record", "chunk", "compress", "encrypt", "merkle", "store", "seal")
    ]
    assert "none missing, none doubled" in rows[0]
    command = next(line for line in lines if "verify it" in line).split("lucid ", 1)[1].split()
    readme = (Path(__file__).parents[2] / "README.md").read_text().splitlines()
    shown = [line[4:] for line in readme[readme.index("    pip install uv && uv run lucid demo") + 1 :]]
    first = next(at for at, line in enumerate(shown) if line.startswith("nats-server"))
    assert shape(shown[first : first + 12]) == shape(lines)
    verified = lucid(*command, data=tmp_path / "elsewhere", cwd=here)
    assert verified.returncode == 0, verified.stdout
    assert {path.name for path in here.iterdir()} == {"demo-01", "demo-01.mp4", "demo-01.trust.json"}
    assert not (data / "run.json").exists()
    again = ok(lucid, "demo", "--seconds", "1", data=data, cwd=here)
    assert again["session"] == "demo-02"
    assert hashlib.sha256((here / "demo-02.mp4").read_bytes()).hexdigest() == again["sha256"]


def test_a_file_comes_back_to_the_byte(lucid: Lucid, data: Path, tmp_path: Path) -> None:
    """Breaks: what was recorded is not what is watched."""
    source = tmp_path / "source"
    source.write_bytes(random.Random(4).randbytes(3_000_000) + b"tail" * 500_000)
    small = {"CHUNK_SIZE_MB": "0.25"}
    result = ok(lucid, "record", "--input", str(source), "--session", "file-1", data=data, **small)
    assert result["state"] == "STOPPED"
    assert result["sealed"] is True
    assert result["plain"] == 5_000_000
    assert result["recorded"] >= 5_000_000 / (1 << 18)
    ok(lucid, "export", "file-1", "--out", str(tmp_path / "back"), data=data)
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    steps = [
        json.loads(line)["type"].split(".")[2]
        for line in lucid("watch", "file-1", "--no-follow", "--json", data=data).stdout.splitlines()
    ]
    assert {step: steps.count(step) for step in ("recorded", "chunked", "stored", "ended")} == {
        **dict.fromkeys(("recorded", "chunked", "stored"), result["recorded"]),
        "ended": 1,
    }
    assert "file-1" in lucid("sessions", "list", data=data).stdout
    shown = lucid("sessions", "show", "file-1", data=data).stdout
    assert "STOPPED, sealed" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_a_list_and_one_session_tell_the_same(lucid: Lucid, data: Path, tmp_path: Path) -> None:
    """Breaks: a list has a chunk more than the session; or `destroy` is refused for a reason never shown."""
    source = tmp_path / "source"
    source.write_bytes(b"a session of one chunk")
    kept = ("--retention-days", "3")
    ok(lucid, "record", "--input", str(source), "--session", "kept-until", *kept, data=data)
    listed = lucid("sessions", "list", "--name", "kept-until", data=data).stdout
    shown = lucid("sessions", "show", "kept-until", data=data).stdout
    assert " 1 chunk, " in listed
    assert " 1 chunk + index, " in shown
    assert "  kept until " in shown


def test_standard_input_is_a_source(lucid: Lucid, data: Path, tmp_path: Path) -> None:
    """Breaks: `ffmpeg ... | lucid record -`."""
    with subprocess.Popen(["sh", "-c", "printf one; sleep 0.3; printf two"], stdout=subprocess.PIPE) as feed:
        result = ok(lucid, "record", "--input", "-", "--session", "pipe-1", data=data, stdin=feed.stdout)
    assert result["plain"] == 6
    ok(lucid, "export", "pipe-1", "--out", str(tmp_path / "back"), data=data)
    assert (tmp_path / "back").read_bytes() == b"onetwo"


def test_a_source_that_is_not_there_leaves_no_session(lucid: Lucid, data: Path) -> None:
    """Breaks: a typing mistake uses up a name for ever."""
    said = lucid("record", "--input", "/nowhere/a.mp4", "--session", "never-1", data=data)
    assert said.returncode == 4
    assert "[record.source]" in said.stderr
    assert lucid("sessions", "show", "never-1", data=data).returncode == 4


@pytest.mark.parametrize("folder", ["/", "."])
def test_a_folder_is_no_source_and_leaves_no_session(lucid: Lucid, data: Path, folder: str) -> None:
    """Breaks: a recording begins, and its first read is a bug."""
    said = lucid("record", "--input", folder, "--session", "never-2", data=data)
    assert (said.returncode, "Is a directory" in said.stderr) == (4, True), said.stderr
    assert lucid("sessions", "show", "never-2", data=data).returncode == 4


def test_a_source_that_nobody_waits_for_ends_at_once(lucid: Lucid, data: Path) -> None:
    """Breaks: `record - < /dev/null`, as a service manager starts it, is a bug and leaves a session open."""
    for source, session in (("-", "null-1"), ("/dev/null", "null-2")):
        said = lucid("record", "--input", source, "--session", session, data=data)
        assert (said.returncode, "[record.empty]" in said.stderr) == (4, True), said.stderr
        assert ok(lucid, "sessions", "show", session, data=data)["sealed"]


def test_a_named_pipe_that_nobody_writes_can_be_left(lucid: Lucid, data: Path, tmp_path: Path) -> None:
    """Breaks: Ctrl-C does nothing until somebody writes."""
    os.mkfifo(tmp_path / "pipe")
    recording = lucid.start(
        *("record", "--input", str(tmp_path / "pipe"), "--session", "fifo-1", "--json"), data=data
    )
    until(lucid, data, "fifo-1", "ACTIVE")
    recording.send_signal(signal.SIGINT)
    out, err = recording.communicate(timeout=PATIENCE_S)
    assert recording.returncode == 0, err
    assert json.loads(out)["sealed"] is True


def test_a_name_is_never_used_twice(lucid: Lucid, data: Path, tmp_path: Path) -> None:
    """Breaks: two recordings share one name, and nobody knows which one was meant."""
    (tmp_path / "source").write_bytes(b"x")
    ok(lucid, "record", "--input", str(tmp_path / "source"), "--session", "once-1", data=data)
    said = lucid("record", "--input", str(tmp_path / "source"), "--session", "once-1", data=data)
    assert said.returncode == 5, said.stderr


@pytest.mark.parametrize("how", ["SIGINT", "SIGHUP", "sessions stop"])
def test_a_live_recording_is_ended_in_order(lucid: Lucid, data: Path, how: str) -> None:
    """Breaks: Ctrl-C, a closed terminal, or an operator's stop, leaves a recording without its end."""
    name = f"live-{how.split()[-1]}"
    recording = lucid.start(
        *("record", "--desktop", "--size", "640x360", "--session", name, "--json"), data=data
    )
    encoded(data, name)
    if how.startswith("SIG"):
        recording.send_signal(signal.Signals[how])
        recording.send_signal(signal.Signals[how])  # `uv run` delivers it twice
    else:
        ok(lucid, "sessions", "stop", name, data=data)
    out, err = recording.communicate(timeout=PATIENCE_S)
    assert recording.returncode == 0, err
    result = json.loads(out)
    assert result["sealed"] is True
    assert ("Ctrl-C again" in err, "ended elsewhere" in err) == (
        how.startswith("SIG"),
        how == "sessions stop",
    ), err
    assert result["plain"] > 0
    assert "end" not in result  # nobody had to end it for the host


def test_a_live_recording_is_paused_and_resumed_by_a_person(lucid: Lucid, data: Path) -> None:
    """Breaks: nobody can let a recording rest; or its encoder does not survive it."""
    name = "rests"
    recording = lucid.start(
        *("record", "--desktop", "--size", "640x360", "--session", name, "--json"), data=data
    )
    until(lucid, data, name, "ACTIVE")
    assert ok(lucid, "sessions", "pause", name, data=data)["state"] == "PAUSING"
    assert {"RESUME", "STOP"} <= set(until(lucid, data, name, "PAUSED")["allowed"])
    time.sleep(2)
    assert recording.poll() is None
    assert ok(lucid, "sessions", "resume", name, data=data)["state"] == "ACTIVE"
    again = lucid("sessions", "resume", name, "--json", data=data)
    assert (again.returncode, json.loads(again.stdout)["code"]) == (5, "state.refused")
    time.sleep(1)
    ok(lucid, "sessions", "stop", name, data=data)
    out, err = recording.communicate(timeout=PATIENCE_S)
    assert recording.returncode == 0, err
    assert json.loads(out)["sealed"] is True
    assert ok(lucid, "verify", name, "--open", data=data)["verdict"] == "true"


def test_destroying_needs_a_yes_and_is_for_good(lucid: Lucid, data: Path, tmp_path: Path) -> None:
    """Breaks: evidence is destroyed by a slip, or comes back after it was destroyed."""
    (tmp_path / "source").write_bytes(b"x" * 1000)
    ok(lucid, "record", "--input", str(tmp_path / "source"), "--session", "gone-1", data=data)
    refused = lucid("sessions", "destroy", "gone-1", data=data)
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    assert lucid("verify", "gone-1", data=data).returncode == 0
    gone = ok(lucid, "sessions", "destroy", "gone-1", "--yes", data=data)
    assert gone["state"] == "DESTROYED"
    assert lucid("export", "gone-1", "--out", str(tmp_path / "back"), data=data).returncode == 5
    assert lucid("sessions", "show", "gone-1", data=data).returncode == 0


def test_several_sessions_are_destroyed_by_one_call(lucid: Lucid, data: Path, tmp_path: Path) -> None:
    """Breaks: who has used up a host's places types a command for each of 250 sessions."""
    (tmp_path / "source").write_bytes(b"x" * 1000)
    names = ("gone-7", "gone-8")
    for name in names:
        ok(lucid, "record", "--input", str(tmp_path / "source"), "--session", name, data=data)
    assert "2 sessions" in lucid("sessions", "destroy", *names, data=data).stderr
    assert lucid("sessions", "destroy", *names, "--yes", data=data).stdout.count("DESTROYED") == 2
    said = lucid("sessions", "destroy", "nobody", "gone-7", "--yes", data=data)
    assert (said.returncode, said.stderr.count("session.absent"), said.stderr.count("state.refused")) == (
        4,
        1,
        1,
    )


def test_one_of_several_that_cannot_be_destroyed_keeps_no_other(
    lucid: Lucid, data: Path, tmp_path: Path
) -> None:
    """Breaks: what was to be erased is kept, for a name before it was mistyped; a script gets two objects."""
    (tmp_path / "source").write_bytes(b"x" * 1000)
    ok(lucid, "record", "--input", str(tmp_path / "source"), "--session", "gone-9", data=data)
    said = lucid("sessions", "destroy", "nobody", "gone-9", "--yes", "--json", data=data)
    (first, second) = json.loads(said.stdout)["sessions"]
    assert (said.returncode, first["session"], first["code"]) == (4, "nobody", "session.absent")
    assert (second["session"], second["state"]) == ("gone-9", "DESTROYED")


def test_who_looks_at_a_session_that_is_destroyed_is_told(lucid: Lucid, data: Path) -> None:
    """Breaks: a recording, and whoever watches it, waits for ever for a session that is no more."""
    looking = [
        lucid.start(*("record", "--desktop", "--size", "640x360", "--session", "gone-2", "--json"), data=data)
    ]
    encoded(data, "gone-2")
    looking += [
        lucid.start("watch", "gone-2", data=data),
        lucid.start("watch", "gone-2", "--json", data=data),
    ]
    time.sleep(1)  # they may find it destroyed already: they must end all the same
    ok(lucid, "sessions", "destroy", "gone-2", "--yes", data=data)
    for process in looking:
        out, err = process.communicate(timeout=PATIENCE_S)
        assert "destroyed" in out + err
        assert process.returncode in (0, 5), out + err
    assert looking[0].returncode == 5


def test_rotated_keys_still_open_what_they_kept(lucid: Lucid, data: Path, tmp_path: Path) -> None:
    """Breaks: a rotation locks everything that was recorded before it."""
    (tmp_path / "source").write_bytes(b"before")
    ok(lucid, "record", "--input", str(tmp_path / "source"), "--session", "kept-1", data=data)
    rotated = ok(lucid, "keys", "rotate", data=data)
    assert rotated["version"] == 2
    assert rotated["rewrapped"] >= 1
    ok(lucid, "export", "kept-1", "--out", str(tmp_path / "back"), data=data)
    assert (tmp_path / "back").read_bytes() == b"before"


def test_one_data_directory_has_one_owner_who_can_be_found(lucid: Lucid, data: Path) -> None:
    """Breaks: two servers write to one store."""
    assert stat.S_IMODE((data / "run.json").stat().st_mode) == 0o600
    said = lucid("up", data=data)
    assert said.returncode == 7
    assert "[datadir.locked]" in said.stderr


def test_a_wrong_master_key_shows_at_start(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: a mistyped ENCRYPTION_KEY is found when the first recording cannot begin."""
    short = lucid("up", data=tmp_path / "data", ENCRYPTION_KEY="kilimanjaro")
    assert (short.returncode, short.stdout) == (2, "")
    assert "[config.encryption_key]" in short.stderr
    process = up(lucid, tmp_path / "data", ENCRYPTION_KEY="a long kilimanjaro phrase")
    assert end(process) == 0
    other = lucid("up", data=tmp_path / "data", ENCRYPTION_KEY="another kilimanjaro phrase")
    assert other.returncode == 6, other.stderr
    assert "[keys.master]" in other.stderr


async def test_a_role_that_cannot_start_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: `up` waits half a minute for something that crashed at once, and does not say what."""
    monkeypatch.setattr(supervisor, "roles", lambda _: {"nonsense": ("nonsense",)})
    with pytest.raises(Unavailable, match=r"the nonsense ends as soon as it is started"):
        async with supervisor.running(Installation(Settings(data=tmp_path)), quiet=True):
            pass
    assert not DataDir(tmp_path).is_owned()


def test_killed_processes_come_back_and_nothing_is_lost(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: one crash of worker, conductor or server in the middle of a recording costs evidence."""
    data = tmp_path / "data"
    process = up(lucid, data)
    recording = lucid.start(
        *("record", "--desktop", "--size", "640x360", "--seconds", "8", "--session", "hurt-1", "--json"),
        data=data,
        CHUNK_SIZE_MB="0.25",
    )
    until(lucid, data, "hurt-1", "ACTIVE")
    pids = children_of(process)
    for role in ("worker", "nats", "conductor"):
        os.kill(pids[role], signal.SIGKILL)
        time.sleep(1.5)
    out, err = recording.communicate(timeout=PATIENCE_S)
    assert recording.returncode == 0, out + err
    verified = ok(lucid, "verify", "hurt-1", "--open", "--strict", data=data)
    assert verified["gaps"] == 0
    assert end(process) == 0


def test_a_killed_supervisor_leaves_nothing_in_the_way(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: after a crash somebody has to find and end processes, or files, by hand."""
    data = tmp_path / "data"
    process = up(lucid, data)
    (tmp_path / "source").write_bytes(b"x" * 100_000)
    ok(lucid, "record", "--input", str(tmp_path / "source"), "--session", "before-1", data=data)
    pids = children_of(process).values()
    process.kill()
    process.communicate()
    deadline_s = time.monotonic() + PATIENCE_S
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert lucid("sessions", "list", data=data).returncode == 7
    half = data / "chunks" / f"{TEMPORARY}0011"
    half.write_bytes(b"half a chunk")
    process = up(lucid, data)
    assert not half.exists()
    assert lucid("verify", "before-1", data=data).returncode == 0
    assert end(process) == 0
