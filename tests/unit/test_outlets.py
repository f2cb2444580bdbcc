"""Standard output and standard error that take no more: nothing raises, and nothing is forgotten."""

import contextlib
import errno
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from streams.cli import output
from streams.cli.main import main
from streams.cli.outlets import PIECE_BYTES, Outlet

FULL_DISK = "/dev/full"


@contextlib.contextmanager
def full_stdout() -> Iterator[Outlet]:
    file = os.open(FULL_DISK, os.O_WRONLY)
    outlet = Outlet(file)
    stream = io.TextIOWrapper(io.BufferedWriter(outlet), encoding="utf-8")
    with contextlib.redirect_stdout(stream):
        yield outlet
    os.close(file)


def test_what_cannot_be_written_is_lost_and_remembered() -> None:
    """Breaks: a recording ends because nobody reads its notes, or an export that was cut looks whole."""
    read, write = os.pipe()
    os.close(read)
    outlet = Outlet(write)
    assert (outlet.lost, outlet.reader_gone) == (None, False)
    assert [outlet.write(b"x" * 100), outlet.write(memoryview(b"y"))] == [100, 1]
    assert (outlet.lost and outlet.lost.errno, outlet.reader_gone) == (errno.EPIPE, True)
    os.close(write)


def test_a_pipe_that_somebody_made_nonblocking_gets_everything() -> None:
    """Breaks: beside a program that sets O_NONBLOCK, a long result ends in a stack trace."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    sent = os.urandom(1 << 20)
    got: list[bytes] = []

    def drain() -> None:
        with os.fdopen(read, "rb") as file:
            got.append(file.read())

    reader = threading.Thread(target=drain)
    reader.start()
    stream = io.BufferedWriter(Outlet(write))
    stream.write(sent)
    stream.flush()
    os.close(write)
    reader.join()
    assert got == [sent]


@pytest.mark.parametrize("status", [0, 3, 9])
def test_a_full_disk_changes_no_status_but_that_of_success(
    capsys: pytest.CaptureFixture[str], status: int
) -> None:
    """Breaks: false evidence, or a result that nobody got, ends with 0."""
    with full_stdout() as stdout:
        output.say("told")
        assert output.final_status(status) == (status or 8)
        assert stdout.lost is not None
    assert "[disk.full]" in capsys.readouterr().err


def test_an_error_that_its_json_could_not_tell_is_told_on_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Breaks: a script ends with a status, and its log holds no reason."""
    with full_stdout():
        assert main(["verify", "./nowhere", "--json"]) == 4
    assert "there is no ./nowhere" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_no_name_and_no_locale_ends_in_a_stack_trace(encoding: str) -> None:
    """Breaks: a file name that is no text, or an old terminal, turns a verdict into exit status 1."""
    name = os.fsdecode("né☃".encode() + b"\xff")
    said = subprocess.run(
        [sys.executable, "-P", "-m", "streams.cli.main", "verify", f"./{name}"],
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
        capture_output=True,
        check=False,
    )
    shown = {
        "utf-8": "né☃".encode() + b"\xff",
        "ascii": rb"n\xe9\u2603" + b"\xff",
        "latin-1": "né".encode("latin-1") + rb"\u2603" + b"\xff",
    }
    assert (said.returncode, said.stdout) == (4, b"")
    assert said.stderr == b"lucid: there is no ./" + shown[encoding] + b"  [evidence.absent]\n"


def test_notes_that_nobody_reads_stop_nothing() -> None:
    """Breaks: a recording, or a whole system, stands still behind a pager that nobody scrolls."""
    read, write = os.pipe()
    outlet = Outlet(write, patience_s=0.01)
    stream = io.TextIOWrapper(io.BufferedWriter(outlet), encoding="utf-8", line_buffering=True)
    for _ in range(3):
        stream.write("x" * (1 << 16) + "\n")  # each as much as the pipe holds
    assert outlet.lost is None
    kept = os.read(read, 1 << 20)
    assert kept == b"x" * len(kept)
    stream.write("again\n")
    left_out = 3 * ((1 << 16) + 1) - len(kept)
    assert os.read(read, 1 << 20) == b"lucid: %d bytes were left out here: nobody read\nagain\n" % left_out
    assert len(kept) >= PIECE_BYTES
    os.close(read)
    stream.write("gone\n")
    assert (outlet.lost and outlet.lost.errno) == errno.EPIPE
    os.close(write)
