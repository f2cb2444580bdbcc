"""What a running system tells a person to type, typed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.machine.waiting import PATIENCE_S
from tests.support.program.running import encoded, ok, running, until

Lucid = Any
"""The `Program` of conftest.py."""


@pytest.fixture(scope="module")
def data(lucid: Lucid, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data directory of a system that runs for all tests of this file."""
    yield from running(lucid, tmp_path_factory.mktemp("typed") / "data")


def told(lucid: Lucid, data: Path, session: str) -> list[str]:
    """The commands that `show` ends with."""
    lines = lucid("sessions", "show", session, data=data).stdout.splitlines()
    assert all(len(line) <= 80 for line in lines)
    first = next((at for at, line in enumerate(lines) if line.startswith("  next  ")), len(lines))
    return [line[8:] for line in lines[first:]]


def recorded(lucid: Lucid, data: Path, session: str) -> None:
    source = data.parent / f"{session}.source"
    source.write_bytes(b"x" * 1000)
    ok(lucid, "record", "--input", str(source), "--session", session, data=data)


def test_what_show_tells_of_a_sealed_session_can_be_typed(lucid: Lucid, data: Path, tmp_path: Path) -> None:
    """Breaks: a newcomer reads triggers of a table, or types what he is told and is refused."""
    recorded(lucid, data, "typed-1")
    commands = told(lucid, data, "typed-1")
    assert commands[0] == "lucid verify typed-1"
    assert commands[-1] == "lucid sessions destroy typed-1"
    for command in commands[:-1]:
        said = lucid(*command.split()[1:], data=data, cwd=tmp_path)
        assert said.returncode == 0, (command, said.stderr)
    ok(lucid, "sessions", "destroy", "typed-1", "--yes", data=data)
    gone = lucid("sessions", "show", "typed-1", data=data).stdout
    assert "its key is shredded" in gone
    assert "chunk" not in gone
    assert told(lucid, data, "typed-1") == []
    assert "typed-1 is destroyed" in lucid("watch", "typed-1", data=data).stdout


def test_a_recording_that_runs_is_stopped_as_show_tells(lucid: Lucid, data: Path) -> None:
    """Breaks: who asks how to end a recording is told STOP_COMPLETE."""
    recording = lucid.start("record", "--desktop", "--size", "640x360", "--session", "typed-2", data=data)
    until(lucid, data, "typed-2", "ACTIVE")
    slip = lucid("recover", "typed-2", data=data)
    assert slip.returncode == 5
    assert "cannot RECOVER: it is ACTIVE" in slip.stderr
    assert "lucid sessions stop typed-2" in slip.stderr
    early = lucid("verify", "typed-2", data=data)
    assert (early.returncode, "; lucid sessions stop typed-2" in " ".join(early.stderr.split())) == (5, True)
    command = told(lucid, data, "typed-2")[0]
    assert lucid(*command.split()[1:], data=data).returncode == 0
    out, err = recording.communicate(timeout=PATIENCE_S)
    assert recording.returncode == 0, err
    assert out.startswith("typed-2 recorded and sealed")


def test_a_demo_that_was_ended_early_says_no_more_of_it_in_the_end(
    lucid: Lucid, data: Path, tmp_path: Path
) -> None:
    """Breaks: a result that is complete still says what Ctrl-C would do."""
    demo = lucid.start("demo", "--seconds", "600", data=data, cwd=tmp_path)
    encoded(data, "demo-01")
    demo.send_signal(signal.SIGINT)
    out, err = demo.communicate(timeout=PATIENCE_S)
    assert (demo.returncode, "Ctrl-C" in err) == (0, True), out + err
    assert [line.split()[0] for line in out.splitlines()][5:8] == ["store", "seal", "verified,"]


def test_a_sealed_session_that_is_recovered_is_said_to_be_sealed(lucid: Lucid, data: Path) -> None:
    """Breaks: who wants his recording back is sent to make another."""
    recorded(lucid, data, "typed-3")
    said = lucid("recover", "typed-3", data=data)
    assert said.returncode == 5
    assert "it is STOPPED, sealed" in said.stderr
    assert "lucid verify typed-3, or lucid replay typed-3" in " ".join(said.stderr.split())


def test_only_what_a_replay_mends_is_told_to_be_replayed(lucid: Lucid, data: Path, tmp_path: Path) -> None:
    """Breaks: `verify` sends people to restore what nothing can: an ending that no host made."""
    recording = lucid.start("record", "--desktop", "--size", "640x360", "--session", "typed-5", data=data)
    encoded(data, "typed-5")
    recording.kill()
    assert lucid("sessions", "stop", "typed-5", "--abort", data=data).returncode == 0
    uid = until(lucid, data, "typed-5", "STOPPED")["uid"]
    strict = lucid("verify", "typed-5", "--strict", data=data)
    assert (strict.returncode, "replay" in strict.stdout) == (3, False), strict.stdout
    assert "NOTE the installation ended it: aborted" in (
        lucid("export", "typed-5", "--out", str(tmp_path / "back"), data=data).stderr
    )
    chunk = next(path for path in (data / "chunks" / uid).iterdir())
    chunk.unlink()
    missing = lucid("verify", "typed-5", data=data)
    assert missing.returncode == 3
    assert "restore it: lucid replay typed-5" in missing.stdout
    assert lucid("replay", "typed-5", data=data).returncode == 0
    assert lucid("verify", "typed-5", data=data).returncode == 0
    chunk.unlink()
    chunk.mkdir()
    assert lucid("verify", "typed-5", data=data).returncode == 4
    assert "restored; the damaged file is" in lucid("replay", "typed-5", data=data).stdout
    assert lucid("verify", "typed-5", data=data).returncode == 0


def test_a_session_is_found_beside_a_folder_of_its_name(lucid: Lucid, data: Path, tmp_path: Path) -> None:
    """Breaks: where the demo left a copy, `show` tells people to type what asks for a trust file or a key."""
    recorded(lucid, data, "typed-4")
    for words in (("--evidence", "typed-4"), ("--out", "back")):
        assert lucid("export", "typed-4", *words, data=data, cwd=tmp_path).returncode == 0
    assert (tmp_path / "back").read_bytes() == b"x" * 1000
    assert "in this installation" in lucid("verify", "typed-4", data=data, cwd=tmp_path).stdout
    assert lucid("verify", "typed-4", "--open", data=data, cwd=tmp_path).returncode == 0
    (tmp_path / "typed-4").rename(tmp_path / "typed-x")
    for target, system in (("typed-x", data), ("./typed-x", data), ("typed-x", tmp_path / "nothing")):
        said = lucid("verify", target, data=system, cwd=tmp_path)
        assert (said.returncode, "[trust.absent]" in said.stderr) == (2, True), said.stderr
        said = lucid("export", target, "--out", "again", data=system, cwd=tmp_path)
        assert (said.returncode, "[keys.needed]" in said.stderr) == (2, True), said.stderr


def test_who_means_the_folder_is_told_that_its_session_was_verified(
    lucid: Lucid, data: Path, tmp_path: Path
) -> None:
    """Breaks: a copy that somebody changed is called true, for a session here has its name and is."""
    recorded(lucid, data, "typed-6")
    ok(lucid, "export", "typed-6", "--evidence", str(tmp_path / "typed-6"), data=data)
    (tmp_path / "typed-6" / "chunks" / f"{0:010}").write_bytes(b"false")
    beside, alone = (lucid("verify", "typed-6", data=data, cwd=place) for place in (tmp_path, data))
    assert (beside.returncode, alone.returncode) == (0, 0)
    assert "not the folder here: that is lucid verify ./typed-6" in beside.stderr
    assert "folder" not in alone.stderr


def test_a_closed_input_is_no_source_and_leaves_no_session(lucid: Lucid, data: Path) -> None:
    """Breaks: `record --input - <&-` is a bug, or records whatever is opened next under that number."""
    verb = [sys.executable, "-P", "-m", "streams.cli.main", "record", "--input", "-", "--session", "never-3"]
    said = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *verb],
        env={**os.environ, "LUCID_DATA": str(data)},
        cwd=data.parent,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert said.returncode == 4, said.stderr
    assert said.stderr.startswith("lucid: standard input cannot be read: it is closed")
    assert lucid("sessions", "show", "never-3", data=data).returncode == 4


def test_a_list_that_shows_nothing_or_not_all_says_what_to_type(lucid: Lucid, data: Path) -> None:
    """Breaks: who has mistyped a filter believes that everything is gone; the next page loses the filter."""
    for name in ("listed-1", "listed-2"):
        recorded(lucid, data, name)
    none = lucid("sessions", "list", "--name", "no-such", data=data)
    assert (none.returncode, none.stdout) == (0, "")
    assert none.stderr == "lucid: no session fits; see all: lucid sessions list\n"
    page = lucid("sessions", "list", "--name", "listed-", "--limit", "1", data=data)
    told, _, command = page.stderr.strip().rpartition(": ")
    assert (told, command.split()[1:4]) == ("lucid: there are more", ["sessions", "list", "--after"])
    rest = lucid(*command.split()[1:], data=data)
    assert (page.stdout.split()[0], rest.stdout.split()[0]) == ("listed-2", "listed-1")
    assert len(rest.stdout.splitlines()) == 1
