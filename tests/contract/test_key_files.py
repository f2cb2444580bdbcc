"""Key files on disk, alone and with a mirror: each test names a sentence of the port KeyFiles."""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from infra.disk.durable import opened_folder
from infra.keys import overwriting, session_keys
from infra.keys.medium import Medium, find_mount, medium
from infra.keys.mirrored_session_keys import MirroredKeyFiles
from infra.keys.session_keys import DiskKeyFiles
from schemas.errors import Misuse, NoSpace, Unavailable
from tests.support.machine.absent import MAY_MOUNT, absent
from tests.support.machine.small_disk import small_disk

UID, OTHER = bytes(range(16)), bytes(range(1, 17))
DISK_BYTES = 16 << 20


def content() -> bytes:
    return os.urandom(4096)


class Mirrored(MirroredKeyFiles):
    """Key files in two folders, the second one beside the first."""

    def __init__(self, root: Path) -> None:
        super().__init__(DiskKeyFiles(root), DiskKeyFiles(root.with_name("mirror")))
        self.root = root


Files = DiskKeyFiles | Mirrored


def held(files: Files, uid: bytes = UID) -> bytes | None:
    opened = files.open(uid)
    if opened is None:
        return None
    opened.close()
    return opened.data


@pytest.fixture(params=[DiskKeyFiles, Mirrored])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    made: Files = request.param(tmp_path / "sessions")
    return made


def again(files: Files) -> Files:
    """As another process has them."""
    return type(files)(files.root)


def roots(files: Files) -> list[Path]:
    return [files.root] if isinstance(files, DiskKeyFiles) else [files.root, files.root.with_name("mirror")]


def leftovers(files: Files) -> list[str]:
    return [path.name for root in roots(files) for path in root.glob("??/.*")]


def test_of_many_makers_one_makes_the_key_and_all_others_read_it(files: Files) -> None:
    """Breaks: two processes start a session, and half of it is under a key that nobody has."""
    offered = [content() for _ in range(16)]
    with ThreadPoolExecutor(16) as threads:
        made = set(threads.map(lambda data: again(files).make(UID, data), offered))
    assert len(made) == 1
    assert made <= set(offered)
    assert held(files) in made
    assert leftovers(files) == []


def test_nothing_is_there_before_it_is_made(files: Files) -> None:
    """Breaks: a session whose key is not made yet is taken for one whose key was erased."""
    assert files.open(UID) is None
    files.make(UID, content())
    assert held(files, OTHER) is None
    assert list(files.uids()) == [UID]


def test_an_erased_key_can_never_be_made_again(files: Files) -> None:
    """Breaks: a late writer gives a destroyed session a key, and what comes then is kept."""
    data = content()
    files.make(UID, data)
    opened = files.open(UID)
    assert opened is not None
    assert (opened.data, opened.stands()) == (data, True)
    outcome = files.erase(UID)
    assert not opened.stands()
    assert held(files) == files.make(UID, content()) == b""
    assert files.erase(UID) == outcome, "an erasure that is repeated says something else"
    opened.close()
    opened.close()


def test_a_session_without_a_key_can_be_fenced(files: Files) -> None:
    """Breaks: a session that was destroyed while it started gets a key afterwards."""
    files.erase(UID)
    assert held(files) == files.make(UID, content()) == b""
    assert files.replace(UID, lambda old: content()) is None


def test_a_reader_sees_that_a_key_was_replaced(files: Files) -> None:
    """Breaks: a process goes on with a file that is not the session's any more."""
    old, new = content(), content()
    files.make(UID, old)
    opened = files.open(UID)
    assert opened is not None
    given: list[bytes] = []
    assert files.replace(UID, lambda data: given.append(data)) is None
    assert opened.stands()
    assert files.replace(UID, lambda data: new) is not None
    assert given == [old]
    assert not opened.stands()
    assert os.pread(opened._file, 8192, 0) == b"", "the old bytes are still there"
    assert held(files) == new
    assert leftovers(files) == []
    opened.close()


def test_a_key_is_opened_at_once_or_not_at_all(files: Files) -> None:
    """Breaks: one slow disk, or one erasure under way, stops everything that a worker does."""
    old, new = content(), content()
    assert files.open_now(UID) is None, "there is none"
    files.make(UID, old)
    assert held(files) == old
    at_once = files.open_now(UID)  # None where the system cannot tell what is in memory
    assert at_once is None or (at_once.data, at_once.stands()) == (old, True)
    with opened_folder(files.root / UID.hex()[:2]) as folder:
        fcntl.flock(folder, fcntl.LOCK_EX)
        assert files.open_now(UID) is None, "it waited for whoever changes keys there"
    files.replace(UID, lambda data: new)
    assert at_once is None or not at_once.stands()
    again_at_once = files.open_now(UID)
    assert again_at_once is None or again_at_once.data == new
    files.erase(UID)
    assert files.open_now(UID) is None, "an erased key was handed out"
    assert again_at_once is None or not again_at_once.stands()
    for opened in (at_once, again_at_once):
        if opened is not None:
            opened.close()


def test_every_session_is_named_in_order_and_told_whether_it_is_erased(files: Files) -> None:
    """Breaks: a rotation that goes on after a session passes others by."""
    uids = [bytes([number % 5, number]) * 8 for number in range(20)]
    for number, uid in enumerate(uids):
        files.make(uid, content())
        if number % 3 == 0:
            files.erase(uid)
    assert list(files.uids()) == sorted(uids)
    assert list(files.states()) == [(uid, uids.index(uid) % 3 == 0) for uid in sorted(uids)]


def test_replacing_nothing_makes_nothing(files: Files) -> None:
    """Breaks: a rotation makes keys for sessions that have none."""
    assert files.replace(UID, lambda old: content()) is None
    assert files.open(UID) is None


def test_replacements_and_erasures_at_once_leave_each_file_whole(files: Files) -> None:
    """Breaks: a rotation brings an erased key back, or tears one that stays."""
    uids = [bytes((1, number)) * 8 for number in range(24)]
    made = {uid: files.make(uid, content()) for uid in uids}
    written = {uid: [data] for uid, data in made.items()}

    def rotate(uid: bytes) -> None:
        def make(old: bytes) -> bytes:
            assert old in written[uid], "torn"
            written[uid].append(content())
            return written[uid][-1]

        again(files).replace(uid, make)

    with ThreadPoolExecutor(12) as threads:
        jobs = [threads.submit(rotate, uid) for uid in uids]
        jobs += [threads.submit(again(files).erase, uid) for uid in uids[::2]]
        jobs += [threads.submit(rotate, uid) for uid in uids]
        assert [job.exception() for job in jobs] == [None] * len(jobs)
    for number, uid in enumerate(uids):
        assert held(files, uid) == (b"" if number % 2 == 0 else written[uid][-1])
    assert leftovers(files) == []


def test_a_leftover_is_erased_and_the_key_beside_it_stays(files: Files) -> None:
    """Breaks: the next start after a crash erases the key itself, or leaves an old copy of it."""
    data = content()
    files.make(UID, data)
    folder = files.root / UID.hex()[:2]
    same, other = folder / f".{UID.hex()}.00000000", folder / f".{UID.hex()}.00000001"
    os.link(folder / f"{UID.hex()}.key", same)
    other.write_bytes(content())
    foreign = folder / ".nfs0001"
    foreign.write_bytes(b"not ours")
    with other.open("rb") as file:
        assert files.sweep() == 2
        assert os.pread(file.fileno(), 8192, 0) == b""
    assert held(files) == data
    assert leftovers(files) == [foreign.name]
    assert files.sweep() == 0


@pytest.mark.parametrize("then", ["put_back", "make", "erase"])
def test_a_leftover_that_may_be_left_elsewhere_is_not_forgotten_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    """Breaks: a move stops half-way, a key stays on old blocks of the new disk, and is called overwritten."""
    monkeypatch.setattr(overwriting, "medium", lambda file: Medium("ext4", ""))
    data = content()

    def outcome(files: DiskKeyFiles, overwrites: bool) -> str:
        folder = files.root / UID.hex()[:2]
        folder.mkdir(parents=True)
        (folder / f".{UID.hex()}.0011aabb").write_bytes(data)
        with monkeypatch.context() as patched:
            if not overwrites:  # as if the file system wrote to another place
                patched.setattr(session_keys, "overwrite", lambda file: overwriting.overwrite(file) and False)
            files.sweep()
        assert data not in [path.read_bytes() for path in folder.iterdir()]
        if then != "erase":
            getattr(files, then)(UID, data)
            files.mark_proven(UID, data)
        found = files.erase(UID, was_made=False)
        assert leftovers(files) == []
        shutil.rmtree(files.root)
        return found

    with small_disk(tmp_path, DISK_BYTES, "ext4") as disk:  # one that tells where its blocks are
        if disk is None:
            absent("the right to mount a small ext4", MAY_MOUNT)
        files = DiskKeyFiles(disk.path / "sessions")
        assert outcome(files, overwrites=True) == "overwritten"
        assert outcome(files, overwrites=False) == "unproven"


REFUSALS = {
    errno.ENOSPC: (NoSpace, "keys.space"),
    errno.EROFS: (Unavailable, "keys.read_only"),
    errno.EACCES: (Unavailable, "keys.access"),
    errno.EIO: (Unavailable, "keys.io"),
}


@contextmanager
def refused(call: str, number: int) -> Iterator[None]:
    """The disk refuses a call of this name. open: for writing."""
    real = getattr(os, call)

    def refusing(*args: Any, **more: Any) -> Any:
        if call == "open" and not args[1] & os.O_RDWR:
            return real(*args, **more)
        raise OSError(number, os.strerror(number))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, call, refusing)
        yield


@pytest.mark.parametrize("number", REFUSALS, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["open", "write", "link"])
def test_a_key_that_cannot_be_made_leaves_nothing_and_the_error_names_the_cure(
    files: Files, call: str, number: int
) -> None:
    """Breaks: a full disk is filled further by every try to make a key, and nobody knows what to do."""
    files.make(OTHER, content())
    for _ in range(3):
        with refused(call, number), pytest.raises(REFUSALS[number][0]) as caught:
            files.make(UID, content())
        assert (caught.value.code, bool(caught.value.hint)) == (REFUSALS[number][1], True)
        assert str(files.root) in caught.value.message
    assert (held(files), leftovers(files)) == (None, [])
    data = content()
    assert files.make(UID, data) == held(files) == data


@pytest.mark.parametrize("number", REFUSALS, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["open", "write", "link", "rename"])
def test_a_key_that_cannot_be_replaced_stays_as_it_was(files: Files, call: str, number: int) -> None:
    """Breaks: a rotation on a full disk takes the key of a session with it."""
    data = files.make(UID, content())
    with refused(call, number), pytest.raises(REFUSALS[number][0]) as caught:
        files.replace(UID, lambda _: content())
    assert caught.value.code == REFUSALS[number][1]
    assert (held(files), leftovers(files)) == (data, [])


@pytest.mark.parametrize("number", REFUSALS, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["open", "write", "fsync", "ftruncate"])
def test_an_erasure_that_the_disk_refuses_is_none_and_can_be_repeated(
    files: Files, call: str, number: int
) -> None:
    """Breaks: a tombstone stands, and the key that it speaks of opens the recording."""
    files.make(UID, content())
    for _ in range(2):
        with refused(call, number), pytest.raises(REFUSALS[number][0]) as caught:
            files.erase(UID)
        assert (caught.value.code, bool(caught.value.hint)) == (REFUSALS[number][1], True)
        assert held(files) != b""
    files.erase(UID)
    assert held(files) == b""


def test_a_disk_that_keeps_something_else_is_no_success(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a key is called erased, and the disk has it still."""
    files.make(UID, content())
    with monkeypatch.context() as patched:
        patched.setattr(session_keys.direct_io, "write_all", lambda file, data: None)
        with pytest.raises(Unavailable) as caught:
            files.erase(UID)
    assert caught.value.code == "keys.read_back"
    assert held(files) != b""
    files.erase(UID)
    assert held(files) == b""


def test_a_link_is_not_followed(files: Files, tmp_path: Path) -> None:
    """Breaks: erasing a key overwrites a file elsewhere."""
    precious = tmp_path / "precious"
    precious.write_bytes(b"stays")
    for root in roots(files):
        folder = root / UID.hex()[:2]
        folder.mkdir(parents=True)
        (folder / f"{UID.hex()}.key").symlink_to(precious)
    for call in (lambda: files.erase(UID), lambda: files.open(UID), lambda: files.make(UID, content())):
        with pytest.raises(Unavailable):
            call()
    assert precious.read_bytes() == b"stays"


MOUNTINFO = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 253:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw,discard
40 27 0:44 /keys /srv/keys\\040here rw - {kind} server:/keys rw,vers=4.2
"""


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "fuse.sshfs", "fuse.glusterfs"]
)
def test_keys_on_a_network_file_system_are_refused(
    kind: str, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: keys lie on another machine, whose snapshots keep them whatever is erased here."""
    mount = find_mount(MOUNTINFO.format(kind=kind), "pos:\t0\nflags:\t02100000\nmnt_id:\t40\nino:\t2\n")
    assert mount is not None
    found = Medium(mount.kind, f"{mount.kind} keeps old blocks")
    monkeypatch.setattr(session_keys, "medium", lambda file: found)
    for call in (lambda: files.make(UID, content()), lambda: files.erase(UID), lambda: files.open(UID)):
        with pytest.raises(Misuse) as caught:
            call()
        assert caught.value.code == "keys.network"
    assert list(files.uids()) == []


def test_what_a_file_lies_on_is_found_by_its_mount(tmp_path: Path) -> None:
    """Breaks: a folder that is mounted from elsewhere is judged by the disk around it."""
    mount = find_mount(MOUNTINFO.format(kind="btrfs"), "mnt_id:\t27\n")
    assert mount is not None
    assert mount[:2] == ("253:0", "ext4")
    assert find_mount(MOUNTINFO, "mnt_id:\t99\n") is None
    assert find_mount(MOUNTINFO, "") is None
    assert find_mount("garbage\n\n- - -", "mnt_id:\t1\n") is None
    with open("/proc/self/mountinfo", "rb") as file:
        assert medium(file.fileno()).unproven, "proc is no disk"
