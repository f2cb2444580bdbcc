"""What erasing a key file leaves on the raw disk, on file systems of our own: searched block by block.

Every search is shown to find the keys that were kept.
"""

import fcntl
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from handlers.crypto.key_file import KEY_FILE_BYTES, build_key_file, open_key_file, read_head
from infra.keys.mirrored_session_keys import MirroredKeyFiles
from infra.keys.place import DiskKeyPlace
from infra.keys.session_keys import DiskKeyFiles
from schemas.errors import Denied
from streams.keys.move import move
from tests.support.machine.absent import MAY_MOUNT, absent
from tests.support.machine.small_disk import Disk, small_disk
from tests.support.program import key_file_crash

DISK_BYTES = 16 << 20
MASTERS = {version: bytes([version]) * 32 for version in range(1, 6)}
SECTOR = 512
EXT4_IOC_MOVE_EXT = 0xC028660F


@contextmanager
def disk_of(folder: Path, kind: str) -> Iterator[Disk]:
    with small_disk(folder, DISK_BYTES, kind) as disk:
        if disk is None:
            absent(f"the right to mount a small {kind}", MAY_MOUNT)
        yield disk


def raw(disk: Disk) -> bytes:
    """Every byte of the device, as it is after all that was written has reached it."""
    assert disk.image is not None
    os.sync()
    return disk.image.read_bytes()


def pieces(content: bytes) -> list[bytes]:
    """A part of every sector of a file: none may be left."""
    return [content[at + 448 : at + SECTOR] for at in range(0, len(content), SECTOR)]


def left(device: bytes, content: bytes) -> int:
    """How many sectors of this content the device still has."""
    return sum(piece in device for piece in pieces(content))


def opened(device: bytes) -> set[bytes]:
    """The sessions of which any bytes on the device are a key file that opens."""
    found, at = set(), device.find(b"LKEY")
    while at >= 0:
        whole = device[at : at + KEY_FILE_BYTES]
        try:
            uid = read_head(whole).uid
            open_key_file(MASTERS, uid, whole)
            found.add(uid)
        except Denied:
            pass
        at = device.find(b"LKEY", at + 1)
    return found


def key_file(uid: bytes, version: int) -> bytes:
    return build_key_file(MASTERS[version], version, uid, uid * 2)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
@pytest.mark.parametrize("at_once", [8, 64])
def test_of_many_keys_erased_at_once_during_two_rotations_none_is_on_the_disk(
    tmp_path: Path, kind: str, at_once: int
) -> None:
    """Breaks: eight people are forgotten in one minute, and seven of their keys open what a backup has."""
    uids = [bytes([number % 7, number]) * 8 for number in range(2 * at_once)]
    gone, kept = uids[::2], uids[1::2]
    written: list[bytes] = []
    with disk_of(tmp_path, kind) as disk:
        root = disk.path / "sessions"

        def rotate(uid: bytes, version: int) -> None:
            def make(old: bytes) -> bytes | None:
                if read_head(old).master_version >= version:
                    return None
                written.append(key_file(uid, version))
                return written[-1]

            DiskKeyFiles(root).replace(uid, make)

        with ThreadPoolExecutor(at_once + 8) as threads:
            written += threads.map(lambda uid: DiskKeyFiles(root).make(uid, key_file(uid, 1)), uids)
            device = raw(disk)
            assert all(left(device, content) == len(pieces(content)) for content in written)
            assert opened(device) == set(uids)
            rotating = [threads.submit(rotate, uid, version) for version in (2, 3) for uid in uids]
            outcomes = set(threads.map(DiskKeyFiles(root).erase, gone))
            assert [job.exception() for job in rotating] == [None] * len(rotating)
        assert outcomes == {"overwritten"}
        now = {uid: (root / uid.hex()[:2] / f"{uid.hex()}.key").read_bytes() for uid in uids}
        device = raw(disk)
    assert opened(device) == set(kept)
    assert [uid for uid in gone if now[uid]] == []
    stays = {now[uid] for uid in kept}
    assert all(left(device, content) == len(pieces(content)) for content in stays)
    assert [content[:44] for content in written if content not in stays and left(device, content)] == []


@pytest.mark.parametrize("kind", ["ext4-journal", "btrfs", "tmpfs"])
def test_where_overwriting_proves_nothing_it_is_called_unproven(tmp_path: Path, kind: str) -> None:
    """Breaks: a tombstone says that a key is off the disk, and the journal or an old block has it."""
    uids = [bytes([1, number]) * 8 for number in range(8)]
    with disk_of(tmp_path, kind) as disk:
        files = DiskKeyFiles(disk.path / "sessions")
        assert files.unproven()
        written = [files.make(uid, key_file(uid, 1)) for uid in uids]
        assert {files.replace(uid, lambda old: None) for uid in uids} == {None}
        assert {files.erase(uid) for uid in uids} == {"unproven"}
        assert {files.erase(uid) for uid in uids} == {"unproven"}
        device = raw(disk) if disk.image else b""
    # This is why: were it not so, this test would ask for too little.
    assert kind == "tmpfs" or any(left(device, content) for content in written)


def test_a_key_that_was_made_is_found_after_any_crash(tmp_path: Path) -> None:
    """Breaks: a maker is killed, the next one starts the session, the power fails, and its key is gone."""
    uid, other = b"u" * 16, b"uv" * 8
    with disk_of(tmp_path, "ext4") as disk:
        root = disk.path / "sessions"
        DiskKeyFiles(root).make(other, key_file(other, 1))
        (tmp_path / "content").write_bytes(key_file(uid, 1))
        os.sync()
        named = root / uid.hex()[:2] / f"{uid.hex()}.key"
        at = 0
        while not named.exists():
            at += 1
            assert crash(root, uid, "make", tmp_path / "content", at).returncode == -signal.SIGKILL
        found = DiskKeyFiles(root).make(uid, key_file(uid, 2))
        lose_power(disk)
        files = DiskKeyFiles(root)
        files.sweep()
        assert files.make(uid, key_file(uid, 3)) == found


def copied(root: Path, uid: bytes) -> None:
    """The folder as an operator's `cp -a` makes it, in the place of the old one."""
    subprocess.run(["cp", "-a", str(root), f"{root}-copy"], check=True)
    shutil.rmtree(root)
    Path(f"{root}-copy").rename(root)


def defragmented(root: Path, uid: bytes) -> None:
    """The file's blocks elsewhere, as e4defrag puts them."""
    donor = root / "donor"
    with (root / uid.hex()[:2] / f"{uid.hex()}.key").open("r+b") as file, donor.open("w+b") as other:
        os.posix_fallocate(other.fileno(), 0, KEY_FILE_BYTES)
        count = KEY_FILE_BYTES // os.fstat(file.fileno()).st_blksize
        move = struct.pack("=IIQQQQ", 0, other.fileno(), 0, 0, max(count, 1), 0)
        fcntl.ioctl(file, EXT4_IOC_MOVE_EXT, move)
    donor.unlink()


def removed(root: Path, uid: bytes) -> None:
    (root / uid.hex()[:2] / f"{uid.hex()}.key").unlink()


def restored(root: Path, uid: bytes) -> None:
    """The folder from its sealed copy, after it was lost."""
    content = (root / uid.hex()[:2] / f"{uid.hex()}.key").read_bytes()
    shutil.rmtree(root)
    assert DiskKeyFiles(root).put_back(uid, content) == content
    assert DiskKeyFiles(root).put_back(uid, key_file(uid, 2)) == content


@pytest.mark.parametrize("elsewhere", [copied, defragmented, removed, restored])
def test_a_key_whose_bytes_lie_elsewhere_too_is_not_called_overwritten(
    tmp_path: Path, elsewhere: Callable[[Path, bytes], None]
) -> None:
    """Breaks: a tombstone says that a key is off the disk, and blocks that no file has any more hold it."""
    uid = b"u" * 16
    with disk_of(tmp_path, "ext4") as disk:
        root = disk.path / "sessions"
        content = DiskKeyFiles(root).make(uid, key_file(uid, 1))
        elsewhere(root, uid)
        assert [DiskKeyFiles(root).erase(uid) for _ in range(2)] == ["unproven"] * 2
        assert DiskKeyFiles(root).make(uid, content) == b""
        assert left(raw(disk), content), "this is why"


@pytest.mark.parametrize("kind", ["ext4", "ext4-journal"])
def test_moved_keys_are_gone_from_the_old_disk_or_said_to_be_there(tmp_path: Path, kind: str) -> None:
    """Breaks: the old disk is sold, and it opens every session; or no later erasure counts as proven."""
    uids, gone = [bytes([number % 3, number]) * 8 for number in range(12)], b"g" * 16
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    with disk_of(tmp_path / "old", kind) as before, disk_of(tmp_path / "new", "ext4") as after:
        old, new = DiskKeyPlace(before.path), DiskKeyPlace(after.path / "keys")
        old.folder.begin()
        secret = b'{"key": "' + os.urandom(200).hex().encode() + b'"}'
        old.folder.put_back("master-00000001.json", secret)
        written = [old.files.make(uid, key_file(uid, 1)) for uid in (*uids, gone)]
        first = old.files.erase(gone)
        assert opened(raw(before)) >= set(uids)
        moved = move(old, new)
        device = raw(before)
        proven = kind == "ext4"
        assert moved == (12, 0 if proven else 12, "overwritten" if proven else "unproven", False)
        assert (opened(device) == set()) == proven, "this is why"
        if proven:
            assert secret not in device
            assert not any(left(device, content) for content in written)
        assert opened(raw(after)) == set(uids)
        expected = "overwritten" if proven else "unproven"
        assert (first, new.files.erase(gone)) == (expected, expected)
        assert {new.files.erase(uid) for uid in uids} == {expected}
        assert opened(raw(after)) == set()
        assert move(old, new) == (0, 0, "overwritten", True)


@pytest.mark.parametrize("kind", ["ext4", "ext4-journal"])
def test_of_a_mirrored_key_both_disks_are_overwritten_or_it_is_unproven(tmp_path: Path, kind: str) -> None:
    """Breaks: a tombstone says that a key is off the disk, and the second disk still opens the session."""
    uids = [bytes([number % 3, number]) * 8 for number in range(16)]
    gone, kept = uids[::2], uids[1::2]
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    with disk_of(tmp_path / "first", "ext4") as first, disk_of(tmp_path / "second", kind) as second:
        one, two = (DiskKeyFiles(disk.path / "sessions") for disk in (first, second))
        files, written = MirroredKeyFiles(one, two), []
        with ThreadPoolExecutor(16) as threads:
            written += threads.map(lambda uid: files.make(uid, key_file(uid, 1)), uids)
            assert opened(raw(first)) == opened(raw(second)) == set(uids)
            rotating = [
                threads.submit(files.replace, uid, lambda _, uid=uid: key_file(uid, 2)) for uid in uids
            ]
            outcomes = set(threads.map(files.erase, gone))
            assert [job.exception() for job in rotating] == [None] * len(rotating)
        proven = kind == "ext4"
        assert outcomes == {"overwritten" if proven else "unproven"}
        assert {files.erase(uid) for uid in gone} == outcomes, "an erasure that is repeated says the same"
        assert opened(raw(first)) == set(kept)
        device = raw(second)
        assert opened(device) >= set(kept)
        assert (opened(device) == set(kept)) == proven, "this is why"
        if proven:
            assert not any(left(device, content) for content in written)
        # A key whose file one disk has lost is somewhere on that disk.
        (two.root / kept[0].hex()[:2] / f"{kept[0].hex()}.key").unlink()
        files.sweep()
        assert files.erase(kept[0]) == "unproven"


def test_a_session_that_never_had_a_key_leaves_none(tmp_path: Path) -> None:
    """Breaks: the tombstone of a session that never started says that its key may be on the disk."""
    uid = b"u" * 16
    with disk_of(tmp_path, "ext4") as disk:
        files = DiskKeyFiles(disk.path / "sessions")
        assert [files.erase(uid, was_made=False) for _ in range(2)] == ["overwritten"] * 2


def test_a_key_that_ever_lay_in_a_journal_stays_unproven(tmp_path: Path) -> None:
    """Breaks: one remount makes a tombstone say that a key is off the disk whose copy the journal has."""
    uid, later = b"a" * 16, b"ab" * 8
    with disk_of(tmp_path, "ext4-journal") as disk:
        files = DiskKeyFiles(disk.path / "sessions")
        files.make(uid, key_file(uid, 1))
        assert disk.image is not None
        subprocess.run(["umount", str(disk.path)], check=True)
        subprocess.run(
            ["tune2fs", "-o", "journal_data_ordered", str(disk.image)], check=True, capture_output=True
        )
        subprocess.run(["mount", "-o", "loop,nodiscard", str(disk.image), str(disk.path)], check=True)
        device = os.stat(disk.path).st_dev
        rotational = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/queue/rotational")
        rotational.write_text("1")
        assert not files.unproven()
        files.make(later, key_file(later, 1))
        assert files.replace(uid, lambda old: key_file(uid, 2)) == "unproven"
        assert (files.erase(uid), files.erase(later)) == ("unproven", "overwritten")
        rotational.write_text("0")
        assert "flash" in files.unproven()
        rotational.write_text("1")


ALLOWED = {"make": {"none", "after"}, "replace": {"before", "after"}, "erase": {"before", "noise", "empty"}}
"""What may stand there after a crash of each call, once the next start has swept."""


def crash(root: Path, uid: bytes, call: str, content: Path, at: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, key_file_crash.__file__, str(root), uid.hex(), call, str(content), str(at)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize("call", ALLOWED)
@pytest.mark.parametrize("power", ["killed", "power failed"])
def test_a_crash_before_any_effect_leaves_a_key_or_none_and_the_disk_clean(
    tmp_path: Path, call: str, power: str
) -> None:
    """Breaks: a kill or a power failure in the middle of a rotation loses the key, or leaves the old one."""
    kept = b"k" * 16
    with disk_of(tmp_path, "ext4") as disk:
        root = disk.path / "sessions"
        files, written, states = DiskKeyFiles(root), [], set()
        stays = files.make(kept, key_file(kept, 1))
        calm = b"\0" + bytes(15)
        prepare(files, calm, call, written)
        (tmp_path / "content").write_bytes(key_file(calm, 2))
        effects = int(crash(root, calm, call, tmp_path / "content", 0).stdout)
        assert effects >= 4
        for at in range(1, effects + 1):
            uid = bytes((at,)) + bytes(15)
            before = prepare(files, uid, call, written)
            after = key_file(uid, 2)
            written.append(after)
            (tmp_path / "content").write_bytes(after)
            os.sync()
            died = crash(root, uid, call, tmp_path / "content", at)
            assert died.returncode == -signal.SIGKILL, (at, died.stderr)
            if power == "power failed":
                lose_power(disk)
            files.sweep()
            assert list(root.glob("??/.*")) == [], at
            found = files.open(uid)
            state = found.data if found else None
            if found:
                found.close()
            told = {before: "before", after: "after", b"": "empty", None: "none"}.get(state, "noise")
            assert told in ALLOWED[call], at
            states.add(told)
            assert files.erase(uid) in ("overwritten", "unproven")
        assert len(states) > 1, "no crash was before or none was after what counts"
        device = raw(disk)
    assert opened(device) - {calm} == {kept}
    assert left(device, stays) == len(pieces(stays))
    assert [content[8:44].hex() for content in written if left(device, content)] == []


def prepare(files: DiskKeyFiles, uid: bytes, call: str, written: list[bytes]) -> bytes | None:
    """What stands there before the call; all that ever stood is noted."""
    if call == "make":
        return None
    written.append(files.make(uid, key_file(uid, 1)))
    return written[-1]


def lose_power(disk: Disk) -> None:
    """Go on with what the device has at this moment: nothing that is only in memory reaches it any more."""
    assert disk.image is not None
    then = disk.image.with_name("then")
    shutil.copyfile(disk.image, then)
    subprocess.run(["umount", str(disk.path)], check=True)
    then.replace(disk.image)
    subprocess.run(["mount", "-o", "loop,nodiscard", str(disk.image), str(disk.path)], check=True)
