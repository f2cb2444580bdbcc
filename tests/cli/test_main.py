"""The real `lucid`, run as people run it."""

import asyncio
import errno
import json
import logging
import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from infra.nats_server.server import NatsServer
from streams.cli.catalog import VERBS
from streams.cli.main import main
from tests.support.machine.waiting import PATIENCE_S

Lucid = Any
"""The `Program` of conftest.py."""


def test_help_lists_the_verbs_and_what_the_exit_status_means(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: nobody finds what lucid can do."""
    said = lucid("--help", data=tmp_path)
    assert said.returncode == 0
    assert all(verb in said.stdout for verb in ("demo", "up", "record", "sessions", "doctor"))
    assert "3 false evidence" in said.stdout
    assert all(len(line) <= 80 for line in said.stdout.splitlines())


def test_the_version_is_told(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: a report of a fault cannot say of what."""
    said = lucid("--version", data=tmp_path)
    assert said.returncode == 0
    assert said.stdout == f"lucid {version('lucid-sessions')}\n"


def test_every_verb_that_exists_answers_help(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: a verb cannot even be loaded."""
    listed = lucid("--help", data=tmp_path).stdout
    for verb in (verb for verb in VERBS if f"  {verb} " in listed):
        said = lucid(verb, "--help", data=tmp_path)
        assert said.returncode == 0, said.stderr
        assert said.stdout.startswith(f"Usage: lucid {verb}")
        assert not any(line.endswith("...") and "Usage" not in line for line in said.stdout.splitlines())


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("sesions", "list"), "did you mean: lucid sessions"),
        (("sessions", "list", "--nope"), "--nope"),
        (("--nope",), "see lucid --help"),
        (("--strict", "verify", "copy-1"), "lucid verify --help"),
        (("keys", "copy", "copy-1"), "give --passphrase-file FILE"),
        (("keys", "restore", "."), "give --passphrase-file FILE"),
        (("export", "demo-01", "--out"), "see lucid export --help"),
    ],
)
def test_a_wrong_command_line_exits_2_and_says_what_would_be_right(
    lucid: Lucid, tmp_path: Path, arguments: tuple[str, ...], wanted: str
) -> None:
    """Breaks: a typing mistake costs a look into the manual."""
    said = lucid(*arguments, data=tmp_path)
    assert said.returncode == 2
    assert said.stdout == ""
    assert said.stderr.startswith("lucid: ")
    assert wanted in said.stderr
    assert said.stderr.rstrip().endswith("[usage]")


def test_a_copy_that_is_not_there_is_told_before_its_passphrase_is_asked_for(
    lucid: Lucid, tmp_path: Path
) -> None:
    """Breaks: a person types a long passphrase for a file whose name was mistyped."""
    said = lucid("keys", "restore", str(tmp_path / "nope"), data=tmp_path)
    assert said.returncode == 4
    assert said.stderr.rstrip().endswith("[keys.copy_absent]")


def test_nothing_running_exits_7_and_names_the_cure(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: the first command that people type ends in a stack trace."""
    said = lucid("sessions", "list", data=tmp_path)
    assert said.returncode == 7
    assert "nothing is running for" in said.stderr
    assert "lucid up" in said.stderr
    assert "[server.absent]" in said.stderr
    as_json = lucid("sessions", "list", "--json", data=tmp_path)
    assert as_json.returncode == 7
    assert json.loads(as_json.stdout)["code"] == "server.absent"


def test_the_demo_does_not_begin_what_it_cannot_write(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: a recording is made, and all that comes of it is an error."""
    (tmp_path / "file").write_text("")
    said = lucid("demo", "--out", str(tmp_path / "file" / "below"), data=tmp_path / "data", cwd=tmp_path)
    assert (said.returncode, said.stdout) == (2, "")
    assert "[demo.out]" in said.stderr


def test_a_server_of_somebody_else_is_not_to_be_started_by_us(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: whose NATS_URL is wrong is told `lucid up`, which refuses as long as it is set."""
    said = lucid("sessions", "list", "--wait-start", "0", data=tmp_path, NATS_URL="nats://127.0.0.1:1")
    assert (said.returncode, "[nats.unreachable]" in said.stderr) == (7, True), said.stderr
    assert "where NATS_URL is unset: lucid up" in " ".join(said.stderr.split())


@pytest.mark.parametrize("verb", [("verify",), ("export", "--out", "back")])
def test_what_is_not_there_is_said_not_to_be_there(
    lucid: Lucid, tmp_path: Path, verb: tuple[str, ...]
) -> None:
    """Breaks: who mistypes a folder's name starts a system, or reads of a trust file."""
    path = lucid(*verb, "./nowhere", data=tmp_path)
    assert path.returncode == 4
    assert path.stderr == "lucid: there is no ./nowhere  [evidence.absent]\n"
    name = lucid(*verb, "nowhere", data=tmp_path)
    assert name.returncode == 7
    assert "there is no folder nowhere here" in name.stderr
    assert "[server.absent]" in name.stderr


def test_where_nobody_can_say_yes_nothing_was_interrupted(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: a script that forgot --yes takes it for a Ctrl-C, and tries again."""
    said = lucid("sessions", "destroy", "demo-01", data=tmp_path)
    assert said.returncode == 2
    assert "add --yes" in said.stderr


def test_a_reader_that_has_enough_is_no_error(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: `lucid ... | head` prints a stack trace."""
    with lucid.start("doctor", data=tmp_path) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read()
    assert process.returncode == 0
    assert said == ""


def test_where_nothing_can_be_said_the_status_still_says_it(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: a job whose streams are all closed, or full, ends with another status, or a stack trace."""
    for streams in ("<&- >&- 2>&-", ">/dev/full 2>/dev/full"):
        program = f'exec "$@" {streams}'
        words = [sys.executable, "-P", "-m", "streams.cli.main", "verify", "./nowhere"]
        said = subprocess.run(["sh", "-c", program, "sh", *words], cwd=tmp_path, check=False)
        assert said.returncode == 4, streams


def test_a_full_disk_is_no_bug(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: whose disk is full reads a stack trace, and scripts read exit code 1."""
    with open("/dev/full", "w") as full, lucid.start("doctor", data=tmp_path, stdout=full) as process:
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 8, said
    assert said.startswith("lucid: nothing more can be written")


def test_a_log_line_that_finds_no_room_is_no_stack_trace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks: a disk that was full for a moment leaves stack traces in the log of a system that goes on."""
    monkeypatch.setattr(logging, "raiseExceptions", True)
    disk = Mock(write=Mock(side_effect=OSError(errno.ENOSPC, "full")))
    main(["--version"])
    logging.StreamHandler(disk).handle(logging.makeLogRecord({"msg": "lost"}))
    assert capsys.readouterr().err == ""


def test_the_doctor_finds_a_whole_machine_and_says_what_is_not_running(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: the doctor sends people to repair what works."""
    said = lucid("doctor", data=tmp_path)
    assert said.returncode == 0, said.stdout
    lines = [line for line in said.stdout.splitlines() if not line.startswith(" " * 18)]
    assert [line.split()[1] for line in lines] == [
        *("python", "nats-server", "ffmpeg", "data", "disk"),
        *("keys", "copies", "erasing", "swap", "nats", "system"),
    ]
    assert "not running; start it: lucid up" in said.stdout
    found = json.loads(lucid("doctor", "--json", data=tmp_path).stdout)
    assert found["healthy"] is True
    assert subprocess.list2cmdline([check["name"] for check in found["checks"]]).startswith("python")


async def test_the_doctor_does_not_take_a_server_for_a_system(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: nothing records or seals, and the doctor finds everything well."""
    server = NatsServer(tmp_path / "nats")
    await server.start()
    try:
        said = await asyncio.to_thread(lucid, "doctor", data=tmp_path / "data", NATS_URL=server.url)
    finally:
        await server.stop()
    assert said.returncode == 7, said.stdout
    assert "none of our services; start them: lucid serve conductor" in " ".join(said.stdout.split())


def test_the_doctor_reports_a_data_folder_that_cannot_be_made(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: a wrong LUCID_DATA shows first when a recording is lost."""
    (tmp_path / "file").write_text("")
    said = lucid("doctor", data=tmp_path / "file" / "below", cwd=tmp_path)
    assert said.returncode == 2, said.stdout
    assert "Not a directory; set LUCID_DATA to" in " ".join(said.stdout.split())
    assert "not measured: see data" in said.stdout


def test_the_doctor_tries_what_it_says_of_the_data_folder(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: a folder that not even root can write is well, and looking at it is a bug."""
    said = lucid("doctor", data=Path("/proc/nowhere"), cwd=tmp_path)
    assert said.returncode == 2, said.stdout + said.stderr
    assert "/proc/nowhere cannot be written" in said.stdout
    assert all(len(line) <= 80 for line in said.stdout.splitlines())


def test_a_verb_that_asks_the_system_loads_no_library_that_it_does_not_use() -> None:
    """Breaks: each command of `lucid`, and each screen, comes half a second later."""
    heavy = ["httpx", "jwt", "motor", "opentelemetry.sdk", "prometheus_client", "pymongo", "rich", "fastapi"]
    code = f"import sys, streams.cli.verbs.watch; print([name for name in {heavy} if name in sys.modules])"
    said = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_ctrl_c_before_the_program_is_loaded_is_one_line(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """Breaks: who has mistyped and is quick reads a stack trace; a script gets no object."""
    program = """
import os, signal, sys
from importlib.abc import MetaPathFinder

class Interrupt(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "streams.cli.main":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
from streams.cli.entry import run
run()
"""
    said = subprocess.run(
        [sys.executable, "-P", "-c", program, "verify", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (said.returncode, said.stderr) == (130, "lucid: interrupted\n")
    assert [json.loads(line)["code"] for line in said.stdout.splitlines()] == ["interrupted"] * len(arguments)


def test_the_console_script_is_the_one_that_can_be_interrupted() -> None:
    """Breaks: as above."""
    (script,) = (one for one in entry_points(group="console_scripts") if one.name == "lucid")
    assert script.value == "streams.cli.entry:run"
