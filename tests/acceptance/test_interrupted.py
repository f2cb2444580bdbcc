"""Ctrl-C while recording: once ends it in order, twice gives it up; either way what was taken is evidence."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import imageio_ffmpeg
import psutil
import pytest

from tests.support.program.held import fragments
from tests.support.program.installation import WAIT_S, Installation, Json, running, source_arguments, until

BLOCK = os.urandom(700_000)
LEAST_CHUNK = 256 << 10
SMALL = "0.25"
"""CHUNK_SIZE_MB: the least that is allowed."""
ENDING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
FILMED = 5
"""Fragments: the part, the head of the film, and some pictures."""
Recording = subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("interrupted")
    with running(folder / "data") as installation:
        yield installation
    shutil.rmtree(folder)


def record(system: Installation, session: str, stderr: BinaryIO | int = subprocess.PIPE) -> Recording:
    """A recording of a pipe that stays open; returns when chunks of what it gave are recorded."""
    command = ("record", *source_arguments("-"), "--session", session, "--json")
    recording = system.started(*command, stderr=stderr, CHUNK_SIZE_MB=SMALL)
    feed(recording)
    end_s = time.monotonic() + WAIT_S
    while True:
        shown = system("sessions", "show", session, "--json")
        if shown.status == 0 and shown.json["recorded"] >= 2:
            return recording
        assert time.monotonic() < end_s, str(shown)
        assert recording.poll() is None, recording.communicate()
        time.sleep(0.3)


def feed(recording: Recording) -> None:
    assert recording.stdin is not None
    recording.stdin.write(BLOCK)
    recording.stdin.flush()


def leave(recording: Recording, seconds: float = WAIT_S) -> tuple[int, str, str]:
    """What a recording came to. Its pipe stays open until it has ended by itself."""
    recording.wait(timeout=seconds)
    out, err = (said or b"" for said in recording.communicate())
    assert b"Traceback" not in out + err, out + err
    return recording.returncode, out.decode(), err.decode()


def waits(process: Recording, number: signal.Signals) -> bool:
    """Whether a signal was sent and not delivered yet."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    (pending,) = (int(line.split()[1], 16) for line in lines if line.startswith("ShdPnd"))
    return bool(pending >> (number - 1) & 1)


def nats_server(system: Installation) -> psutil.Process:
    """The NATS server that this installation runs."""
    assert system.process is not None
    children = psutil.Process(system.process.pid).children(recursive=True)
    return next(child for child in children if "nats-server" in child.name())


def check_evidence(system: Installation, session: str, folder: Path, end: str) -> Json:
    """It is sealed and true, and holds a beginning of what was given."""
    said = system.json("verify", session, "--open")
    assert (said["verdict"], said["end"], said["findings"]) == ("true", end, [])
    system.json("export", session, "--out", folder / "out")
    taken = (folder / "out").read_bytes()
    assert len(taken) >= 2 * LEAST_CHUNK
    assert (BLOCK + BLOCK).startswith(taken)
    return said


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name
)
def test_one_signal_ends_the_recording_in_order(
    number: signal.Signals, system: Installation, tmp_path: Path
) -> None:
    """Breaks: whoever stops a recording loses it."""
    session = f"once-{number.name}"
    recording = record(system, session)
    recording.send_signal(number)
    status, out, err = leave(recording)
    assert status == 0, out + err
    shown = system.show(session)
    assert (shown["state"], shown["sealed"], shown["refused"]) == ("STOPPED", True, [])
    assert check_evidence(system, session, tmp_path, "final")["notes"] == []


def test_a_signal_that_comes_twice_at_once_is_one(system: Installation, tmp_path: Path) -> None:
    """Breaks: under `uv run`, which hands on what the terminal has sent already, every Ctrl-C gives up."""
    recording = record(system, "doubled")
    for number in (signal.SIGINT, signal.SIGTERM):  # of two that are the same and wait, one is delivered
        recording.send_signal(number)
    status, out, err = leave(recording)
    assert status == 0, out + err
    check_evidence(system, "doubled", tmp_path, "final")


def test_a_second_signal_gives_the_recording_up(system: Installation, tmp_path: Path) -> None:
    """Breaks: a recorder that cannot end cannot be ended, or passes for one that was whole."""
    said = tmp_path / "said"
    with said.open("wb") as stderr:
        recording = record(system, "twice", stderr)
    server = nats_server(system)
    server.suspend()  # nothing is acknowledged any more: it cannot end in order
    try:
        feed(recording)
        recording.send_signal(signal.SIGINT)
        until(lambda: b"ending in order" in said.read_bytes(), "the first signal is heard")
        time.sleep(1.5)
        assert recording.poll() is None
        recording.send_signal(signal.SIGINT)
        until(lambda: not waits(recording, signal.SIGINT), "the second signal is heard")
    finally:
        server.resume()
    status, out, err = leave(recording)
    assert status == 130, out + err
    shown = system.until_sealed("twice")
    assert shown["end"]["end"] == "aborted"
    notes = check_evidence(system, "twice", tmp_path, "aborted")["notes"]
    assert {note["code"] for note in notes} == {"end.not_final"}
    assert "aborted" in system("verify", "twice").out
    assert system("verify", "twice", "--strict").status == 3


def test_the_recording_of_a_killed_host_can_be_ended_by_hand(system: Installation, tmp_path: Path) -> None:
    """Breaks: a host that is gone leaves a session that stays open, or evidence that looks whole."""
    recording = record(system, "killed")
    recording.kill()
    leave(recording)
    assert system.show("killed")["state"] == "ACTIVE"
    assert system("sessions", "stop", "killed", "--abort").status == 0
    shown = system.until_sealed("killed")
    assert shown["end"]["end"] == "aborted"
    check_evidence(system, "killed", tmp_path, "aborted")


def test_ctrl_c_at_a_terminal_leaves_a_film_that_plays(system: Installation, tmp_path: Path) -> None:
    """Breaks: the terminal's Ctrl-C, which reaches the encoder too, cuts the film within a frame."""
    command = ("record", "--desktop", "--size", "320x240", "--session", "film", "--json")
    recording = system.started(*command, own_group=True, CHUNK_SIZE_MB=SMALL)
    until(
        lambda: system("sessions", "show", "film", "--json").json.get("state") == "ACTIVE",
        "its session runs",
    )
    until(lambda: fragments(system.nats_url, "film")[0] >= FILMED, "its first pictures are taken")
    os.killpg(recording.pid, signal.SIGINT)
    status, out, err = leave(recording)
    assert status == 0, out + err
    said = system.json("verify", "film", "--open", "--strict")
    assert (said["verdict"], said["end"]) == ("true", "final")
    film = tmp_path / "film.mp4"
    system.json("export", "film", "--out", film)
    played = subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", film, "-f", "null", "-"],
        capture_output=True,
        check=False,
    )
    assert (played.returncode, played.stderr) == (0, b"")
