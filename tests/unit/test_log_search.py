"""The search of all logs after a run of tests: it finds what it looks for."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kept_logs.log_search import FOLDER, PERSONAL, SECRET, findings, logs_below

ROOT = Path(__file__).parents[2]
TOKEN = "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiJhIn0.c2lnbmF0dXJl"
URL = "nats://lucid:" + "f00dfeed@127.0.0.1:4222"
RUN = """
import subprocess, sys
from schemas.config.logs import logger

def test_it(tmp_path):
    {body}
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in which the search of this run does not look."""
    with tempfile.TemporaryDirectory(prefix="lucid-planted-") as name:
        yield Path(name)


@pytest.mark.parametrize("planted", [PERSONAL.decode().title(), SECRET.decode(), TOKEN, URL])
def test_a_planted_value_is_found_with_its_file_and_line(folder: Path, planted: str) -> None:
    """Breaks: a log holds a password, and the run of all tests is green."""
    (folder / "deep" / "logs").mkdir(parents=True)
    for path in (folder / "deep" / "server.log", folder / "deep" / "logs" / "worker-0"):
        path.write_text(f"all is well\nit is {planted}, here\n")
        (found,) = findings([path])
        assert str(found) == f"{path}:2: it is {planted}, here"
    assert len(list(findings(logs_below(folder)))) == 2


def test_a_result_for_the_caller_may_be_personal_and_never_secret(folder: Path) -> None:
    """Breaks: a person who asks for a session's title turns the run red, or a printed password does not."""
    for verb, planted, count in (
        *(("sessions", PERSONAL, 0), ("sessions", SECRET, 1), ("config", URL.encode(), 1)),
        *(("up", PERSONAL, 1), ("serve", TOKEN.encode(), 1), ("token", TOKEN.encode(), 0)),
    ):
        path = folder / f"77-{verb}.stdout"
        path.write_bytes(b"it is " + planted)
        assert len(list(findings([path]))) == count, verb
        path = folder / f"77-{verb}.stderr"
        path.write_bytes(b"it is " + planted)
        assert len(list(findings([path]))) == 1, verb


LEAKS = {
    "an event of a system in a test": "logger('lucid.test').debug('it_happened', owner='ZAN' 'ZIBAR')",
    "stderr of the program": "subprocess.run([sys.executable, '-m', 'streams.cli.main', 'zan' 'zibar'])",
    "a log file below the folder": "(tmp_path / 'server.log').write_text('kiliman' 'jaro')",
}


@pytest.mark.parametrize("body", LEAKS.values(), ids=LEAKS)
def test_a_run_whose_logs_hold_a_planted_value_fails(folder: Path, body: str) -> None:
    """Breaks: the search looks where nothing is kept, and finds nothing for ever."""
    status, said = _run(folder, body)
    assert (status, "secrets or personal values in logs" in said) == (1, True), said
    assert "1 passed" in said


def test_a_run_with_clean_logs_passes(folder: Path) -> None:
    """Breaks: every run is red, and the search is switched off."""
    assert _run(folder, "logger('lucid.test').info('it_happened', password='kiliman' 'jaro')")[0] == 0


def _run(folder: Path, body: str) -> tuple[int, str]:
    """The exit status and output of a run of one test with this body."""
    (folder / "test_it.py").write_text(RUN.format(body=body))
    plugin = ("-p", "tests.support.kept_logs.log_search", "-p", "no:cacheprovider", f"--rootdir={folder}")
    command = [sys.executable, "-m", "pytest", *plugin, f"--basetemp={folder / 'tmp'}", "test_it.py"]
    clean = {name: text for name, text in os.environ.items() if name != FOLDER}
    environment = {**clean, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr
