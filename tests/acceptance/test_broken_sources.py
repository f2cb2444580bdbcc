"""Sources that break off or run dry, and recorders that are killed: sessions end, and say what they have."""

import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from infra.capture.drawn_desktop import drawn
from schemas.ports.processes import Picture
from tests.support.program.held import fragments
from tests.support.program.installation import (
    WAIT_S,
    Installation,
    at_once,
    clean,
    lucid_command,
    running,
    source_arguments,
    until,
)

UNAVAILABLE, NOT_FOUND, FALSE_EVIDENCE = 7, 4, 3
BLOCK = os.urandom(300_000)
PICTURE = Picture(320, 240, 10, key_frame_s=1)
FILMED = 4
"""Fragments: the part, the head of the film, and some pictures."""
MAY_LACK_S = 2.0
"""What a recorder that is killed may have read and not sent is younger."""
AFTER_S = 3.0


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("broken")
    with running(folder / "data") as installation:
        yield installation
    shutil.rmtree(folder)


def recorded(system: Installation, session: str, least: int) -> None:
    """Return when so many fragments of the session are durable."""
    until(lambda: fragments(system.nats_url, session)[0] >= least, f"{session} records")


def check_kept(system: Installation, session: str, folder: Path, end: str = "final") -> bytes:
    """It is ended, sealed and true; what it holds."""
    shown = system.until_sealed(session)
    assert (shown["refused"], shown["missing"]) == ([], 0)
    said = system.json("verify", session, "--open")
    assert (said["verdict"], said["end"]) == ("true", end)
    system.json("export", session, "--out", folder / "kept")
    return (folder / "kept").read_bytes()


def test_a_link_that_is_reset_ends_the_recording_and_says_so(system: Installation, tmp_path: Path) -> None:
    """Breaks: a session whose source broke off stays open for days, and what was read is not sealed."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as reader,
    ):
        writer, _ = server.accept()
        recording = subprocess.Popen(
            lucid_command("record", *source_arguments("-"), "--session", "reset", "--json"),
            env=clean(LUCID_DATA=str(system.data)),
            stdin=reader.fileno(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        writer.sendall(BLOCK)
        recorded(system, "reset", 2)
        writer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()  # an RST: read answers ECONNRESET
    out, err = recording.communicate(timeout=WAIT_S)
    assert recording.returncode == UNAVAILABLE, out + err
    assert b"Traceback" not in out + err
    assert b'"source.broken"' in out
    assert b"; reset is recorded and sealed up to there: " in out
    assert b" fragments, 300 kB" in out
    assert check_kept(system, "reset", tmp_path) == BLOCK
    assert "its host could not record 1 time: source.broken" in system("sessions", "show", "reset").out
    (note,) = system.json("verify", "reset", "--open")["notes"]
    assert (note["code"], note["message"].split(": ")[-1]) == ("host.gap", "source.broken")
    assert system("verify", "reset", "--open", "--strict").status == FALSE_EVIDENCE


def test_an_encoder_that_is_killed_ends_the_recording_and_says_so(
    system: Installation, tmp_path: Path
) -> None:
    """Breaks: as above, for a desktop whose encoder has crashed."""
    recording = system.started("record", "--desktop", "--size", "320x240", "--session", "crashed")
    recorded(system, "crashed", FILMED)
    (encoder,) = psutil.Process(recording.pid).children()
    encoder.kill()
    out, err = recording.communicate(timeout=WAIT_S)
    assert recording.returncode == UNAVAILABLE, out + err
    assert b"the encoder failed: signal 9; crashed is recorded and sealed up to there" in err.replace(
        b"\n      ", b""
    )
    assert check_kept(system, "crashed", tmp_path)[4:8] == b"ftyp"


def test_what_is_empty_is_not_called_recorded(system: Installation, tmp_path: Path) -> None:
    """Breaks: a pipeline whose first program failed looks as if its recording went well."""
    (tmp_path / "nothing").touch()
    told = system("record", *source_arguments(tmp_path / "nothing"), "--session", "nothing", "--json")
    assert (told.status, told.json["code"]) == (NOT_FOUND, "record.empty"), str(told)
    assert system("sessions", "show", "nothing").status == NOT_FOUND, "no session was begun for it"
    told = system("record", *source_arguments("-"), "--session", "dry", "--json", stdin=b"")
    assert (told.status, told.json["code"]) == (NOT_FOUND, "record.empty"), str(told)
    assert check_kept(system, "dry", tmp_path) == b""


def test_recordings_that_begin_together_have_two_names(system: Installation) -> None:
    """Breaks: of two recordings that begin in one second, one is refused."""
    said = at_once(*2 * [lambda: system.json("record", *source_arguments("-"), stdin=b"x")])
    assert said[0]["session"] != said[1]["session"]


def test_a_recorder_that_is_killed_lacks_two_seconds_at_most(system: Installation, tmp_path: Path) -> None:
    """Breaks: a kill costs all that was read of one box: megabytes, minutes, and nothing says so."""
    film = drawn(1, PICTURE)
    head = film[: film.index(b"mdat") - 4] + (15 << 20).to_bytes(4, "big") + b"mdat"
    recording = system.started("record", *source_arguments("-"), "--session", "killed")
    assert recording.stdin is not None
    recording.stdin.write(head)
    fed, began_s, due = len(head), time.monotonic(), b""
    while (now_s := time.monotonic()) < began_s + AFTER_S + MAY_LACK_S:
        recording.stdin.write(BLOCK[:20_000])
        recording.stdin.flush()
        fed += 20_000
        if now_s < began_s + AFTER_S:
            due = head + (fed - len(head)) // 20_000 * BLOCK[:20_000]
        time.sleep(0.05)
    recording.kill()
    recording.communicate()
    assert system("sessions", "stop", "killed", "--abort").status == 0
    kept = check_kept(system, "killed", tmp_path, "aborted")
    assert kept.startswith(due)
    assert fed < 15 << 20, "the box was never whole"


def test_two_films_in_one_source_are_two_parts_that_play(system: Installation, tmp_path: Path) -> None:
    """Breaks: a source that changes its picture's size plays its first film only."""
    films = [drawn(2, PICTURE), drawn(2, Picture(480, 360, 10, key_frame_s=1))]
    system.record("-", "films", stdin=b"".join(films))
    told = system("export", "films", "--out", tmp_path / "both")
    assert told.status == 0
    assert "2 parts, one after the other; --part N writes one of them" in told.err
    assert (tmp_path / "both").read_bytes() == b"".join(films)
    for number, film in enumerate(films):
        system.json("export", "films", "--part", str(number), "--out", tmp_path / f"{number}")
        assert (tmp_path / f"{number}").read_bytes() == film


def test_nobody_who_listens_stops_no_recording(system: Installation, tmp_path: Path) -> None:
    """Breaks: whoever closes the terminal's pipe ends the recording in the middle of a word."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as nowhere:
        recording = system.started("record", *source_arguments("-"), "--session", "unheard", stderr=nowhere)
        assert recording.stdin is not None
        recording.stdin.write(BLOCK)
        recording.stdin.flush()
        recorded(system, "unheard", 2)
        recording.send_signal(signal.SIGINT)  # it would say that it ends
        recording.wait(timeout=WAIT_S)
    assert recording.returncode == 0
    assert check_kept(system, "unheard", tmp_path) == BLOCK


def kill_everything(system: Installation) -> int:
    """Kill the system and all that it runs; how many processes that were."""
    process, system.process = system.process, None
    assert process is not None
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(children, WAIT_S)
    return 1 + len(children)


def test_who_gives_up_beside_a_server_that_is_gone_is_told_what_comes_next(tmp_path: Path) -> None:
    """Breaks: a recorder that could not end its session says nothing of that."""
    with running(tmp_path / "data") as system:
        with (tmp_path / "said").open("wb") as stderr:
            recording = system.started("record", *source_arguments("-"), "--session", "left", stderr=stderr)
        assert recording.stdin is not None
        recording.stdin.write(BLOCK)
        recording.stdin.flush()
        recorded(system, "left", 2)
        assert kill_everything(system) > 1
        recording.send_signal(signal.SIGINT)
        until(lambda: b"ending in order" in (tmp_path / "said").read_bytes(), "the first signal is heard")
        time.sleep(1.5)
        recording.send_signal(signal.SIGINT)
        recording.wait(timeout=WAIT_S)
        assert recording.returncode == 130, (tmp_path / "said").read_text()
        said = (tmp_path / "said").read_text()
        assert "left is not ended; what the server holds of it is kept" in said, said
        assert "lucid sessions stop left --abort" in said
        system.start()
        assert system("sessions", "stop", "left", "--abort").status == 0
        assert BLOCK.startswith(check_kept(system, "left", tmp_path, "aborted"))
