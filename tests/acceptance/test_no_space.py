"""A disk, or the recording stream, that has no room: nothing taken is lost, and with room it goes on."""

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from schemas.format.fragment import Kind
from tests.support.machine.absent import MAY_MOUNT, absent
from tests.support.machine.small_disk import Disk, small_disk
from tests.support.program.held import fragments
from tests.support.program.installation import VERB_S, Installation, running, source_arguments, until

DISK_BYTES = 384 << 20
ROOM_BYTES = 60_000_000
INPUT_BYTES = 80_000_000
STREAMS_BYTES = 40 << 20
"""Of which recordings may take 80 %."""
NO_SPACE = 8


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Disk]:
    with small_disk(tmp_path, DISK_BYTES, request.param) as disk:
        if disk is None:
            absent(f"the right to mount a small {request.param}", MAY_MOUNT)
        yield disk


def check_whole(system: Installation, session: str, source: Path) -> None:
    """It is true, and is its source to the byte. While nothing could be acknowledged its host was silent."""
    said = system.json("verify", session, "--open")
    assert (said["verdict"], {note["code"] for note in said["notes"]} - {"host.silent"}) == ("true", set())
    out = system.data.parent / f"{session}.out"
    system.json("export", session, "--out", out)
    assert out.read_bytes() == source.read_bytes()
    out.unlink()


def test_a_full_disk_is_waited_out_and_costs_nothing(disk: Disk, tmp_path: Path) -> None:
    """Breaks: a disk that was full for a minute has cost a recording, or all of them."""
    source, before = tmp_path / "source", tmp_path / "before"
    source.write_bytes(os.urandom(INPUT_BYTES))
    before.write_bytes(os.urandom(3_000_000))
    with running(disk.path / "data") as system:
        system.record(before, "before")
        disk.fill(leave=ROOM_BYTES)
        said = tmp_path / "said"
        with said.open("wb") as stderr:
            recording = system.started(
                *("record", *source_arguments(source), "--session", "long", "--json"),
                stderr=stderr,
                CHUNK_SIZE_MB="4",
            )
        until(lambda: b"lucid: waiting: " in said.read_bytes(), "the recording says that it waits")
        assert recording.poll() is None

        # all that needs no room goes on
        assert system.show("long")["state"] == "ACTIVE"
        assert system.json("verify", "before")["verdict"] == "true"
        with (tmp_path / "late").open("wb") as stderr:
            late = system.started(
                *("record", *source_arguments(before), "--session", "late", "--json"), stderr=stderr
            )
        until(
            lambda: late.poll() == NO_SPACE or b"lucid: waiting: " in (tmp_path / "late").read_bytes(),
            "another recording is refused, or says that it waits",
        )

        disk.empty()
        out, _ = recording.communicate(timeout=VERB_S)
        assert recording.returncode == 0, out.decode() + said.read_text()
        check_whole(system, "long", source)
        check_whole(system, "before", before)
        late.communicate(timeout=VERB_S)
        if late.returncode == 0:
            check_whole(system, "late", before)
        else:
            assert late.returncode == NO_SPACE
        system.record(before, "after")
        check_whole(system, "after", before)


def test_an_export_that_does_not_fit_leaves_nothing(disk: Disk, tmp_path: Path) -> None:
    """Breaks: half an export passes for a whole one."""
    with running(tmp_path / "data") as system:
        system.record("-", "large", stdin=os.urandom(3_000_000))
        disk.fill(leave=1_000_000)
        kept = set(disk.path.iterdir())
        for asked in (("--out", disk.path / "out"), ("--evidence", disk.path / "copy")):
            told = system("export", "large", *asked, "--json")
            assert (told.status, told.json["code"]) == (NO_SPACE, "export.space"), str(told)
        assert set(disk.path.iterdir()) == kept


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[Installation]:
    """An installation whose streams are small: what a server has promised once it keeps to."""
    streams = tmp_path / "data" / "nats"
    streams.mkdir(parents=True, mode=0o700)
    (streams / "limits.json").write_text(json.dumps({"max_file": STREAMS_BYTES}))
    with running(tmp_path / "data") as system:
        yield system
    shutil.rmtree(tmp_path / "data")


@contextlib.contextmanager
def no_worker(system: Installation) -> Iterator[None]:
    """Nothing is stored meanwhile, so nothing of a live recording can go."""
    children = psutil.Process(system.process.pid).children(recursive=True)
    (worker,) = (child for child in children if "worker" in child.cmdline())
    worker.suspend()
    try:
        yield
    finally:
        worker.resume()


def test_recordings_that_a_stream_cannot_hold_together_pass_through_it(
    narrow: Installation, tmp_path: Path
) -> None:
    """Breaks: a recording that runs for long takes the room of all others, or its own."""
    source = tmp_path / "source"
    source.write_bytes(os.urandom(18_000_000))
    first = narrow.started("record", *source_arguments("-"), "--session", "first", CHUNK_SIZE_MB="1")
    assert first.stdin is not None
    first.stdin.write(source.read_bytes())
    first.stdin.flush()
    until(lambda: narrow.show("first")["stored"] >= 15, "the first one is recorded")
    narrow.record(source, "second", CHUNK_SIZE_MB="1")
    shown = narrow.show("first")
    assert shown["state"] == "ACTIVE"
    first.communicate(timeout=VERB_S)
    assert first.returncode == 0
    check_whole(narrow, "first", source)
    check_whole(narrow, "second", source)


def test_who_ends_a_recording_that_waits_is_told_what_it_cost(narrow: Installation, tmp_path: Path) -> None:
    """Breaks: a recording that was cut for want of room cannot be ended, or says that it was whole."""
    source = tmp_path / "source"
    source.write_bytes(os.urandom(STREAMS_BYTES))
    with no_worker(narrow):
        with (tmp_path / "said").open("wb") as stderr:
            recording = narrow.started(
                *("record", *source_arguments(source), "--session", "cut", "--json"),
                stderr=stderr,
                CHUNK_SIZE_MB="1",
            )
        until(lambda: b"lucid: waiting: recordings fill" in (tmp_path / "said").read_bytes(), "it waits")
        until(
            lambda: fragments(narrow.nats_url, "cut")[1] is Kind.TICK,
            "what was under way has taken the last room",
        )
        recording.send_signal(signal.SIGINT)
        until(lambda: b"ending in order" in (tmp_path / "said").read_bytes(), "it ends")
    out, _ = recording.communicate(timeout=VERB_S)
    assert (recording.returncode, json.loads(out).get("code")) == (NO_SPACE, "record.cut"), out
    shown = narrow.until_sealed("cut")
    assert 0 < shown["plain"] < STREAMS_BYTES
    assert narrow.json("verify", "cut", "--open")["verdict"] == "true"
    narrow.json("export", "cut", "--out", tmp_path / "out")
    assert source.read_bytes().startswith((tmp_path / "out").read_bytes())
    until(lambda: narrow.record("-", f"next-{time.monotonic_ns()}", stdin=b"x")["sealed"], "room again")
