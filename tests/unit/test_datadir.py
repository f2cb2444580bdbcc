"""What infra.datadir promises."""

import errno
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from infra.datadir import FOLDERS, DataDir, write_private
from schemas.errors import Misuse, NoSpace, Unavailable

HOLD = """
import sys
from pathlib import Path
from infra.datadir import DataDir
data = DataDir(Path(sys.argv[1]))
data.lock()
data.write_run({"pid": 1})
print("held", flush=True)
sys.stdin.read()
"""


def test_two_processes_never_own_one_directory(tmp_path: Path) -> None:
    """Breaks: two servers write into one store, and both lose data."""
    data = DataDir(tmp_path)
    assert not data.is_owned()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Unavailable) as error:
            data.lock()
        assert error.value.code == "datadir.locked"
        assert data.is_owned()
        assert data.read_run() == {"pid": 1}
        holder.kill()
    assert data.read_run() is None, "what a killed owner left behind counts for nothing"
    data.lock()
    data.unlock()
    data.unlock()


def test_the_second_object_of_one_process_does_not_own_either(tmp_path: Path) -> None:
    """Breaks: a test or a tool in one process believes that it owns what another part uses."""
    first = DataDir(tmp_path)
    first.lock()
    with pytest.raises(Unavailable):
        DataDir(tmp_path).lock()
    first.write_run({"a": 1})
    assert DataDir(tmp_path).read_run() == {"a": 1}
    first.unlock()
    assert DataDir(tmp_path).read_run() is None
    assert not (tmp_path / "run.json").exists()


def test_what_is_private_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    """Breaks: another user of the machine reads the server's password or a key."""
    data = DataDir(tmp_path / "data")
    data.lock()
    data.write_run({"url": "secret"})
    for name in FOLDERS:
        assert stat.S_IMODE(data.folder(name).stat().st_mode) == 0o700
    assert stat.S_IMODE((data.path / "run.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(data.host("h1").stat().st_mode) == 0o700
    data.unlock()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    """Breaks: a crash while writing leaves half a file where a good one was."""
    path = tmp_path / "x"
    write_private(path, b"old")
    path.chmod(0o644)
    before = path.stat().st_ino
    write_private(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_ino != before
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["x"]


def test_a_folder_that_cannot_be_written_names_the_path_and_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a wrong owner shows as a stack trace."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(Misuse) as error:
        DataDir(tmp_path / "data").lock()
    assert error.value.code == "config.path"
    assert str(tmp_path / "data") in error.value.message
    assert "mode" in error.value.message
    assert error.value.hint.startswith("chown ")


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.EACCES, r"mkdir -p {0} && chown \S+ {0} && chmod u\+rwx {0}"),
        (errno.EROFS, "set LUCID_DATA to another folder"),
        (errno.EPERM, "set LUCID_DATA to another folder"),
        (errno.ENOENT, "set LUCID_DATA to another folder"),
    ],
    ids=["no rights", "read only", "/sys", "/proc"],
)
def test_only_what_it_would_cure_is_told_to_be_given_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, cure: str
) -> None:
    """Breaks: somebody changes the owner of / or /proc because we said so, and it does not even help."""

    def mkdir(path: Path, **_: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(Misuse) as error:
        DataDir(tmp_path / "data").lock()
    assert re.fullmatch(cure.format(re.escape(str(tmp_path / "data"))), error.value.hint), error.value.hint
    assert f"{tmp_path} belongs to uid" in error.value.message


def test_a_full_disk_is_no_question_of_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: a worker that finds no room for a folder takes its chunk for one that cannot be made."""

    def mkdir(path: Path, **_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(NoSpace, match="No space left"):
        DataDir(tmp_path / "data").lock()


@pytest.mark.parametrize("path", ["file", "file/data"])
def test_a_file_where_a_folder_is_wanted_is_no_question_of_rights(tmp_path: Path, path: str) -> None:
    """Breaks: who named a file is sent to change its owner."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Misuse, match="is no folder") as error:
        DataDir(tmp_path / path).lock()
    assert (error.value.code, error.value.hint) == ("config.path", "")


def test_free_space_is_that_of_the_disk_even_before_the_folder_exists(tmp_path: Path) -> None:
    """Breaks: the first start on a new machine fails while it looks for room."""
    assert DataDir(tmp_path / "a" / "b").free_bytes() > 0
