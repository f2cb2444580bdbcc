"""What infra.disk.data_dir promises."""

import errno
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from infra.disk.data_dir import FOLDERS, DataDir
from infra.disk.durable import write_private
from schemas.errors import Misuse, NoSpace, Unavailable
from tests.support.machine.absent import MAY_MOUNT, absent

HOLD = """
import sys
from pathlib import Path
from infra.disk.data_dir import DataDir
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


def test_a_removed_file_opens_no_way_to_a_second_owner(tmp_path: Path) -> None:
    """Breaks: who tidies up lets a second `up` in, which ends by deleting the first one's run.json."""
    first, second = DataDir(tmp_path), DataDir(tmp_path)
    first.lock()
    first.write_run({"a": 1})
    for name in os.listdir(tmp_path):
        if name != "run.json":
            (tmp_path / name).unlink()
    with pytest.raises(Unavailable) as error:
        second.lock()
    assert error.value.code == "datadir.locked"
    second.unlock()
    assert second.read_run() == {"a": 1}
    (tmp_path / "run.json").unlink()
    assert second.is_owned()
    assert not first.has_run()
    first.write_run({"a": 2})
    assert second.read_run() == {"a": 2}
    first.unlock()
    assert os.listdir(tmp_path) == []


def test_an_owner_removes_what_it_wrote_and_nothing_else(tmp_path: Path) -> None:
    """Breaks: an `up` whose folder was replaced under it takes away how the new one is reached."""
    old, new = DataDir(tmp_path / "data"), DataDir(tmp_path / "data")
    old.lock()
    old.write_run({"of": "old"})
    assert old.is_there()
    (tmp_path / "data").rename(tmp_path / "aside")
    assert not old.is_there()
    new.lock()
    new.write_run({"of": "new"})
    old.unlock()
    assert new.read_run() == {"of": "new"}
    new.unlock()


def test_what_a_killed_owner_wrote_leads_nowhere_while_the_next_one_starts(tmp_path: Path) -> None:
    """Breaks: a recorder tells the password to whoever has the port of an `up` that was killed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.kill()
    data = DataDir(tmp_path)
    data.lock()
    assert (tmp_path / "run.json").exists()
    assert DataDir(tmp_path).read_run() is None
    data.unlock()


def test_who_asks_for_the_owner_keeps_nobody_from_becoming_it(tmp_path: Path) -> None:
    """Breaks: `up` says that its folder is in use because a `list` looked at it in the same moment."""
    asking = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import sys; from infra.disk.folder_lock import *\nwhile True: is_locked(Path(sys.argv[1]))",
            str(tmp_path),
        ]
    )
    try:
        for _ in range(300):
            data = DataDir(tmp_path)
            data.lock()
            data.unlock()
    finally:
        asking.kill()
        asking.wait()


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
    assert f"{tmp_path} belongs to " in error.value.message


def test_a_disk_that_is_mounted_read_only_is_not_to_be_given_away(tmp_path: Path) -> None:
    """Breaks: somebody changes owner and mode of a folder because we said so, and it does not even help."""
    mount = ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        absent("the right to mount a tmpfs", MAY_MOUNT)
    try:
        with pytest.raises(Misuse, match="Read-only") as error:
            DataDir(tmp_path).lock()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert (error.value.code, error.value.hint) == ("config.path", "set LUCID_DATA to another folder")


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
    with pytest.raises(Misuse, match="is not a folder") as error:
        DataDir(tmp_path / path).lock()
    assert (error.value.code, error.value.hint) == ("config.path", "")


def test_free_space_is_that_of_the_disk_even_before_the_folder_exists(tmp_path: Path) -> None:
    """Breaks: the first start on a new machine fails while it looks for room."""
    assert DataDir(tmp_path / "a" / "b").free_bytes() > 0
