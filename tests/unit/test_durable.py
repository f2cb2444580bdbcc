"""The system calls of infra.disk.durable: in this order, or a power failure leaves half of something."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.disk.durable import new_file, new_folder, write_file, write_locked, write_private
from infra.disk.folder_lock import is_locked

CALLS = ("open", "mkdir", "fsync", "link", "replace", "rename", "unlink")
FILE = ["open <temporary>", "fsync <temporary> of 5 bytes"]


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was called on which name; `.` is the folder itself, <temporary> a name that begins with a dot."""
    said: list[str] = []

    def name(path: object) -> str:
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        told = os.path.relpath(str(path), tmp_path)
        return re.sub(r"\.[a-z]+\.[0-9a-f]{8}", "<temporary>", told)

    def spied(call: str, real: Callable[..., object]) -> Callable[..., object]:
        def spy(path: object, *rest: object, **more: object) -> object:
            is_folder = call in ("open", "mkdir") and os.path.isdir(str(path))
            if not is_folder and (call != "unlink" or os.path.lexists(str(path))):
                to = f" {name(rest[0])}" if call in ("link", "replace", "rename") else ""
                size = os.fstat(path).st_size if call == "fsync" and isinstance(path, int) else 0
                whole = isinstance(path, int) and not os.path.isdir(f"/proc/self/fd/{path}")
                said.append(f"{call} {name(path)}{to}" + (f" of {size} bytes" if whole else ""))
            return real(path, *rest, **more)

        return spy

    for call in CALLS:
        monkeypatch.setattr(os, call, spied(call, getattr(os, call)))
    return said


def test_a_new_file_is_durable_before_it_has_its_name(tmp_path: Path, trace: list[str]) -> None:
    """Breaks: after a power failure half a recording lies under an export's name."""
    with new_file(tmp_path / "out") as file:
        file.write(b"whole")
    assert trace == [*FILE, "link <temporary> out", "unlink <temporary>", "fsync ."]


def test_a_replacement_is_durable_before_it_takes_the_name(tmp_path: Path, trace: list[str]) -> None:
    """Breaks: after a power failure a host's counter is empty, and it uses a number twice."""
    write_private(tmp_path / "state", b"later")
    assert trace == [*FILE, "replace <temporary> state", "fsync ."]
    trace.clear()
    with new_file(tmp_path / "state", replace=True) as file:
        file.write(b"again")
    assert trace == [*FILE, "replace <temporary> state", "fsync ."]


def test_a_locked_file_is_locked_before_it_has_its_name(tmp_path: Path, trace: list[str]) -> None:
    """Breaks: a reader takes the address of an owner that has ended."""
    held = write_locked(tmp_path / "run", b"here!")
    assert trace == [*FILE, "replace <temporary> run", "fsync ."]
    assert is_locked(tmp_path / "run")
    os.close(held)
    assert not is_locked(tmp_path / "run")


def test_a_lock_is_given_up_when_the_file_cannot_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: each failed start of a full disk costs one descriptor, and nothing is left behind but them."""
    before = len(os.listdir("/proc/self/fd"))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_locked(tmp_path / "run", b"here!")
    assert len(os.listdir("/proc/self/fd")) == before
    assert os.listdir(tmp_path) == []


def test_a_folder_is_durable_to_its_last_file_before_it_has_its_name(
    tmp_path: Path, trace: list[str]
) -> None:
    """Breaks: after a power failure an evidence copy lacks files, and its name says that it is whole."""
    with new_folder(tmp_path / "copy") as folder:
        assert write_file(folder / "manifests" / "1", b"whole") == 5
    assert trace == [
        *("mkdir <temporary>", "mkdir <temporary>/manifests"),
        *("open <temporary>/manifests/1", "fsync <temporary>/manifests/1 of 5 bytes"),
        *("fsync <temporary>", "fsync <temporary>/manifests", "rename <temporary> copy", "fsync ."),
    ]
