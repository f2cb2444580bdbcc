"""Files that are never half there, on a real file system."""

import errno
import fcntl
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from blake3 import blake3

from infra.blobs import direct_io
from infra.blobs import disk as blobs_disk
from infra.blobs.direct_io import PIECE_BYTES
from infra.blobs.disk import DiskBlobs
from schemas.buffers import ALIGNED_BYTES, aligned, is_aligned
from schemas.errors import Misuse, NoSpace, Unavailable

NAME = "00ff/0000000001"


@pytest.fixture(params=["tmpfile", "named"])
def blobs(tmp_path: Path, request: pytest.FixtureRequest) -> DiskBlobs:
    blobs = DiskBlobs(tmp_path / "chunks")
    if request.param == "named":
        blobs._tmpfile = False
    return blobs


def test_what_was_put_is_read_back(blobs: DiskBlobs) -> None:
    """Breaks: a chunk comes back with other bytes."""
    kinds: list[bytes | bytearray | memoryview] = [
        b"",
        b"x",
        os.urandom(1 << 20),
        bytearray(b"b"),
        memoryview(b"m"),
    ]
    for number, data in enumerate(kinds):
        assert blobs.put(f"aa/{number}", data) == "created"
        assert blobs.read(f"aa/{number}") == bytes(data)


def test_a_session_that_was_stored_costs_no_memory(blobs: DiskBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: after a hundred thousand recordings a worker that was never restarted is too large."""
    monkeypatch.setattr(blobs_disk, "NAMED_KEPT", 5)
    for number in range(20):
        assert blobs.put(f"{number:032x}/0000000000", b"x") == "created"
    assert len(blobs._named) <= 5


def _refused(*_: object) -> int:
    raise OSError(errno.EINVAL, "Invalid argument")


def _short(real: Callable[..., int], most: int) -> Callable[..., int]:
    return lambda file, data: real(file, data[:most])


@pytest.mark.parametrize("memory", ["any", "aligned"])
@pytest.mark.parametrize("disk", ["direct", "unaligned", "cached only", "short writes"])
@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1])
def test_every_length_comes_back_from_every_file_system(
    blobs: DiskBlobs, monkeypatch: pytest.MonkeyPatch, memory: str, disk: str, size: int
) -> None:
    """Breaks: the padding of a last piece stays, or a file system without direct access stores nothing."""
    opened, flagged, written, read = os.open, fcntl.fcntl, os.write, os.readv

    def cached(path: str | Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        """As Linux does: what it refuses is made all the same."""
        file = opened(path, flags & ~direct_io.O_DIRECT, mode, dir_fd=dir_fd)
        return _refused() if flags & direct_io.O_DIRECT else file

    def never_direct(file: int, what: int, flags: int = 0) -> int:
        return (
            _refused() if what == fcntl.F_SETFL and flags & direct_io.O_DIRECT else flagged(file, what, flags)
        )

    def aligned_to_more(real: Callable[..., int]) -> Callable[..., int]:
        def call(file: int, data: object) -> int:
            return _refused() if fcntl.fcntl(file, fcntl.F_GETFL) & direct_io.O_DIRECT else real(file, data)

        return call

    if disk == "cached only":
        monkeypatch.setattr(os, "open", cached)
        monkeypatch.setattr(fcntl, "fcntl", never_direct)
    elif disk == "unaligned":
        monkeypatch.setattr(os, "write", aligned_to_more(written))
        monkeypatch.setattr(os, "readv", aligned_to_more(read))
    elif disk == "short writes":
        monkeypatch.setattr(os, "write", _short(written, 5000 if size < PIECE_BYTES else 600_000))
    data = aligned(size) if memory == "aligned" else bytearray(size)
    data[:] = os.urandom(size)
    assert is_aligned(data) or memory == "any" or size < 2 * ALIGNED_BYTES
    blobs.put("aa/before", b"\xff" * PIECE_BYTES)  # what a piece held before is in no other file
    blobs.put(NAME, data)
    assert blobs.read(NAME) == data
    assert blobs.content(NAME) == (size, blake3(data).digest())
    assert (blobs.root / NAME).stat().st_size == size


def test_memory_that_is_aligned_goes_to_the_disk_as_it_is(
    blobs: DiskBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: every chunk is copied once more on its way to the disk."""
    sizes, written = [], os.write
    monkeypatch.setattr(os, "write", lambda file, part: sizes.append(len(part)) or written(file, part))
    data = aligned(3 * PIECE_BYTES + 1)
    data[:] = os.urandom(len(data))
    blobs.put(NAME, data)
    assert sizes == [3 * PIECE_BYTES, ALIGNED_BYTES]
    assert blobs.read(NAME) == data


def test_a_second_put_changes_no_byte(blobs: DiskBlobs) -> None:
    """Breaks: a replay overwrites evidence."""
    blobs.put(NAME, b"first")
    assert blobs.put(NAME, b"second") == "exists"
    assert blobs.read(NAME) == b"first"


def test_of_many_writers_one_creates_and_nothing_is_left_over(blobs: DiskBlobs) -> None:
    """Breaks: two workers tear one chunk, or leave half files."""
    start = threading.Barrier(16)

    def write(number: int) -> str:
        start.wait()
        return blobs.put(NAME, bytes([number]) * 100_000)

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(write, range(16)))
    assert sorted(answers) == ["created"] + ["exists"] * 15
    data = blobs.read(NAME)
    assert data is not None
    assert data == data[:1] * 100_000
    assert os.listdir(blobs.root / "00ff") == ["0000000001"]


def test_nothing_has_a_name_before_it_is_durable(blobs: DiskBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: a power failure leaves half a chunk under a whole chunk's name."""
    blobs.put("00ff/other", b"")
    trace: list[str] = []
    for call in ("fsync", "link", "write"):
        real = getattr(os, call)

        def spy(*args: object, call: str = call, real: object = real, **more: object) -> object:
            directory = call == "fsync" and os.path.isdir(f"/proc/self/fd/{args[0]}")
            trace.append(f"{call} directory" if directory else call)
            return real(*args, **more)  # type: ignore[operator]

        monkeypatch.setattr(os, call, spy)
    blobs.put(NAME, b"data")
    assert trace == ["write", "fsync", "link", "fsync directory"]
    trace.clear()
    blobs.put(NAME, b"data")
    assert trace == ["fsync directory"], "the other writer's name may not be durable yet"


def test_a_directory_that_another_made_is_synced_by_whoever_first_uses_it(
    blobs: DiskBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: the power fails, and a stored chunk is gone with the directory around it."""
    (blobs.root / "00ff").mkdir(parents=True)
    synced: list[str] = []
    real = os.fsync

    def spy(handle: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        real(handle)

    monkeypatch.setattr(os, "fsync", spy)
    blobs.put(NAME, b"data")
    assert str(blobs.root) in synced
    assert str(blobs.root.parent) in synced


@pytest.mark.parametrize("call", ["write", "fsync", "link"])
@pytest.mark.parametrize("applied", [False, True], ids=["failed", "failed but applied"])
def test_a_put_that_fails_can_be_put_again(
    blobs: DiskBlobs, monkeypatch: pytest.MonkeyPatch, call: str, applied: bool
) -> None:
    """Breaks: one full disk and the chunk is never stored, or stored torn."""
    blobs.put("00ff/other", b"")
    real = getattr(os, call)

    def fail(*args: object, **more: object) -> object:
        if applied:
            real(*args, **more)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, call, fail)
        with pytest.raises(NoSpace):
            blobs.put(NAME, b"data")
    assert blobs.read(NAME) in (None, b"data")
    assert blobs.put(NAME, b"data") in ("created", "exists")
    assert blobs.read(NAME) == b"data"
    assert blobs.sweep() == 0


def test_a_full_disk_says_so_and_other_trouble_says_what(blobs: DiskBlobs) -> None:
    """Breaks: a permission error is retried as a full disk."""
    blobs.root.write_bytes(b"a file where the directory should be")
    with pytest.raises(Unavailable) as error:
        blobs.put(NAME, b"data")
    assert error.value.code == "blobs.io"


def test_names_that_leave_the_root_are_refused(blobs: DiskBlobs) -> None:
    """Breaks: a session writes where it likes."""
    for name in ("", "/etc/x", "../x", "a/../b", "a//b", ".tmp-1", "a/.hidden", "a\0b", "a/b/c/d/e"):
        with pytest.raises(Misuse):
            blobs.put(name, b"")


def test_listing_and_removing_keep_to_the_prefix(blobs: DiskBlobs) -> None:
    """Breaks: one session's end takes another's chunks."""
    for name in ("aa/2", "aa/1", "ab/1"):
        blobs.put(name, b"x")
    assert blobs.list("aa/") == ["aa/1", "aa/2"]
    assert blobs.remove("aa/") == 2
    assert blobs.remove("aa/") == 0
    assert blobs.list() == ["ab/1"]
    assert not (blobs.root / "aa").exists()
    with pytest.raises(Misuse):
        blobs.remove("")


def test_removing_one_file_leaves_a_longer_name(blobs: DiskBlobs) -> None:
    """Breaks: a damaged root key is replaced, and with it goes the copy that was kept beside it."""
    for name in ("root.json", "root.json.bak", "aa/1", "aa/10"):
        blobs.put(name, b"x")
    assert [blobs.remove("root.json"), blobs.remove("root.json"), blobs.remove("aa/1")] == [1, 0, 1]
    assert blobs.list() == ["aa/10", "root.json.bak"]


def test_a_quarantined_file_is_kept_and_its_name_is_free(blobs: DiskBlobs) -> None:
    """Breaks: a damaged chunk stands in the way of the right one, or is lost for the inquiry."""
    blobs.put(NAME, b"damaged")
    kept = blobs.quarantine(NAME)
    assert kept is not None
    assert kept.startswith(NAME + ".")
    assert DiskBlobs(blobs.quarantine_root).read(kept) == b"damaged"
    assert blobs.read(NAME) is None
    assert blobs.quarantine(NAME) is None
    assert blobs.put(NAME, b"right") == "created"


def test_a_crash_inside_quarantine_loses_nothing(blobs: DiskBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: the only copy of a damaged chunk is gone."""
    blobs.put(NAME, b"damaged")
    with monkeypatch.context() as broken:
        broken.setattr(Path, "unlink", lambda *a, **k: (_ for _ in ()).throw(OSError(errno.EIO, "gone")))
        with pytest.raises(Unavailable):
            blobs.quarantine(NAME)
    kept = blobs.quarantine(NAME)
    assert kept is not None
    assert DiskBlobs(blobs.quarantine_root).list() == [kept]


def test_half_written_files_are_swept(tmp_path: Path) -> None:
    """Breaks: crashes fill the disk where unnamed files are not to be had."""
    blobs = DiskBlobs(tmp_path / "chunks")
    blobs.put(NAME, b"x")
    shutil.copy(blobs.root / NAME, blobs.root / ".tmp-0011")
    assert blobs.list() == [NAME]
    assert blobs.sweep() == 1
    assert blobs.list() == [NAME]


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_set_aside_like_a_damaged_one(
    blobs: DiskBlobs, make: Callable[[Path], None]
) -> None:
    """Breaks: no replay mends what a folder with a chunk's name hides; a pipe stops its reader for ever."""
    blobs.put(NAME, b"sealed")
    (blobs.root / NAME).unlink()
    make(blobs.root / NAME)
    with pytest.raises(Unavailable, match=r"blobs\.no_file"):
        blobs.read(NAME)
    kept = blobs.quarantine(NAME)
    assert kept is not None
    assert (blobs.quarantine_root / kept).exists()
    assert blobs.read(NAME) is None
    assert blobs.put(NAME, b"sealed") == "created"


def test_a_file_that_came_in_pieces_is_whole_or_not_there(blobs: DiskBlobs) -> None:
    """Breaks: half an upload lies under the name of a chunk, or a whole one is lost."""
    data = os.urandom(3 * PIECE_BYTES + 17)
    file = blobs.new()
    for at in range(0, len(data), 70_001):
        file.write(data[at : at + 70_001])
    assert blobs.list() == []
    assert file.settle() == (len(data), blake3(data).digest())
    assert file.read() == data
    assert file.keep(NAME) == "created"
    assert file.keep(NAME) == "exists"
    file.close()
    file.close()
    assert blobs.read(NAME) == data
    for kept in (False, True):
        other = blobs.new()
        other.write(b"other")
        other.settle()
        assert not kept or other.keep(NAME) == "exists"
        other.close()
    assert blobs.read(NAME) == data
    assert (blobs.list(), blobs.sweep()) == ([NAME], 0)


def test_a_file_in_pieces_has_its_name_only_when_it_is_durable(
    blobs: DiskBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a power failure leaves half a chunk under a whole chunk's name."""
    blobs.put("00ff/other", b"")
    trace: list[str] = []
    for call in ("fsync", "link", "write"):
        real = getattr(os, call)

        def spy(*args: object, call: str = call, real: object = real, **more: object) -> object:
            directory = call == "fsync" and os.path.isdir(f"/proc/self/fd/{args[0]}")
            trace.append(f"{call} directory" if directory else call)
            return real(*args, **more)  # type: ignore[operator]

        monkeypatch.setattr(os, call, spy)
    file = blobs.new()
    file.write(b"data")
    file.settle()
    file.keep(NAME)
    file.close()
    assert trace == ["write", "fsync", "link", "fsync directory"]


@pytest.mark.parametrize("call", ["write", "fsync", "link"])
def test_a_file_in_pieces_that_fails_leaves_nothing(
    blobs: DiskBlobs, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Breaks: a full disk is filled further by the files that did not fit."""
    blobs.put("00ff/other", b"")
    file = blobs.new()

    def fail(*_: object, **__: object) -> object:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, call, fail)
        with pytest.raises(NoSpace):
            _ = file.write(b"data"), file.settle(), file.keep(NAME)
    file.close()
    assert (blobs.list(), blobs.sweep()) == (["00ff/other"], 0)


def test_an_open_file_is_read_in_pieces_and_shows_that_it_changed(blobs: DiskBlobs) -> None:
    """Breaks: a digest that was computed once stands for bytes that somebody changed on the disk."""
    data = os.urandom(PIECE_BYTES + 3)
    blobs.put(NAME, data)
    assert blobs.open("00ff/absent") is None
    file = blobs.open(NAME)
    assert file is not None
    assert (file.size, file.content()) == (len(data), (len(data), blake3(data).digest()))
    assert file.read_at(0, len(data)) == data
    assert (file.read_at(5, 10), file.read_at(len(data) - 1, 10)) == (data[5:15], data[-1:])
    again = blobs.open(NAME)
    assert again is not None
    assert again.stamp == file.stamp
    (blobs.root / NAME).write_bytes(data[:-1] + b"!")
    changed = blobs.open(NAME)
    assert changed is not None
    assert changed.stamp != file.stamp
    for one in (file, again, changed):
        one.close()
        one.close()
