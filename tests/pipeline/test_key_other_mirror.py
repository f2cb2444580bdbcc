"""A mirror that is not the last one, or whose disk fails: no erasure is called proven that is not."""

import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from infra.keys.place import DiskKeyPlace
from infra.keys.session_keys import DiskKeyFiles
from infra.nats_server.server import NatsServer
from schemas.errors import Denied, Unavailable
from streams.keys.mirror import Mirrored, end, fill
from streams.keys.move import move
from tests.support.pipeline.conducted import connected
from tests.support.pipeline.mirrored import DESTROYED, KEPT, LATER, Pair, held


@pytest.fixture
async def pair(server: NatsServer, tmp_path: Path) -> AsyncIterator[Pair]:
    async with connected(server, tmp_path) as world:
        pair = Pair(world, tmp_path)
        await pair.open()
        for uid in (KEPT, LATER):
            pair.make(uid)
        yield pair


@pytest.fixture
def doubted(monkeypatch: pytest.MonkeyPatch) -> set[tuple[Path, bytes]]:
    """Folder and session of every key that is marked unproven."""
    found: set[tuple[Path, bytes]] = set()
    whole = DiskKeyFiles.mark_unproven

    def mark_unproven(files: DiskKeyFiles, uid: bytes) -> None:
        whole(files, uid)
        found.add((files.root.parent, uid))

    monkeypatch.setattr(DiskKeyFiles, "mark_unproven", mark_unproven)
    return found


def filled(pair: Pair) -> Mirrored:
    here = pair.here
    return fill(pair.first, pair.mirror, here.key_folder, here.key_files, here.keyring)


def swap(pair: Pair, path: Path) -> None:
    """Mount another disk, an empty one at first, in the place of the mirror."""
    pair.mirror.path.rename(path / "away")
    if (path / "other").exists():
        (path / "other").rename(pair.mirror.path)
    (path / "away").rename(path / "other")


async def test_two_disks_in_turn_are_told_apart_and_prove_no_erasure(
    pair: Pair, doubted: set[tuple[Path, bytes]], tmp_path: Path
) -> None:
    """Breaks: a tombstone says overwritten, and the key lies on the mirror disk that is in the drawer."""
    swap(pair, tmp_path)
    assert await pair.refused() == "keys.mirror"
    assert filled(pair).unproven == 2
    first = pair.first.path
    assert doubted == {(first, KEPT), (first, LATER)}, "the disk in the drawer has them"
    await pair.open()
    pair.make(DESTROYED)
    swap(pair, tmp_path)
    running = pair.here.logged_keys(pair.world.jet)
    for _ in range(2):
        assert await pair.refused() == "keys.mirror_other"
        with pytest.raises(Unavailable, match=r"keys\.mirror_other"):
            await running.require()  # as before each key is made or erased
    doubted.clear()
    assert filled(pair).unproven == 3
    assert {uid for path, uid in doubted if path == first} == {KEPT, LATER, DESTROYED}
    await pair.open()
    assert held(pair.first) == held(pair.mirror)
    doubted.clear()
    assert filled(pair).unproven == 0
    assert not doubted, "the same two folders once more"
    swap(pair, tmp_path)
    assert await pair.refused() == "keys.mirror_other", "each pair has a name of its own"


async def test_a_note_without_a_name_is_no_proof_of_the_last_mirror(pair: Pair) -> None:
    """Breaks: a disk that was the mirror before notes had names passes for the last one."""
    for places in ((pair.mirror,), (pair.first, pair.mirror)):
        for place in places:
            (place.path / "mirrored").write_bytes(b"")
        assert await pair.refused() == "keys.mirror_other"
        assert filled(pair).unproven == 2
        await pair.open()


async def test_giving_up_another_mirror_than_the_last_one_leaves_a_doubt(
    pair: Pair, doubted: set[tuple[Path, bytes]], tmp_path: Path
) -> None:
    """Breaks: the wrong disk is overwritten, and the keys on the right one count as erased."""
    swap(pair, tmp_path)
    filled(pair)
    await pair.open()
    pair.make(DESTROYED)
    swap(pair, tmp_path)
    doubted.clear()
    assert end(pair.first, pair.mirror).unproven == 3
    assert (pair.first.path, DESTROYED) in doubted
    assert not list(pair.mirror.path.glob("**/*"))


FAILS = Unavailable("Input/output error", code="keys.io")
CALLS: dict[str, Callable[[DiskKeyPlace], Any]] = {
    "installation": lambda mirror: mirror.folder,
    "states": lambda mirror: mirror.files,
    "alone": lambda mirror: mirror,
    "begin_arriving": lambda mirror: mirror,
    "erase": lambda mirror: mirror.files,
    "vacate": lambda mirror: mirror,
    "end_arriving": lambda mirror: mirror,
}


@pytest.mark.parametrize("call", CALLS)
async def test_a_mirror_whose_disk_fails_is_given_up_by_the_same_command(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Breaks: the mirror's disk dies slowly, and nothing starts any more."""
    before = held(pair.first)

    def fails(*_: object, **__: object) -> None:
        raise FAILS

    with monkeypatch.context() as patched:
        patched.setattr(CALLS[call](pair.mirror), call, fails)
        ended = end(pair.first, pair.mirror)
    if call != "end_arriving":
        assert ended.unproven == 2
    assert held(pair.first) == before
    await pair.open(pair.at(pair.first, None))
    assert await pair.refused() != "", "the failed disk is not taken for a mirror again"


async def test_a_mirror_that_another_command_uses_is_not_given_up(pair: Pair) -> None:
    """Breaks: a fill that runs is taken for a disk that fails."""
    with pair.mirror.alone(), pytest.raises(Unavailable, match=r"keys\.busy"):
        end(pair.first, pair.mirror)
    await pair.open()


async def test_the_mirror_of_another_installation_is_not_emptied_though_it_is_half_filled(
    pair: Pair, tmp_path: Path
) -> None:
    """Breaks: the wrong disk is mounted when a mirror is given up, and another installation loses it."""
    shutil.rmtree(pair.mirror.path)
    pair.mirror.folder.begin()
    pair.mirror.files.make(LATER, b"theirs" * 600)
    pair.mirror.begin_arriving("lucid keys mirror")
    assert end(pair.first, pair.mirror).unproven == 2
    assert held(pair.mirror) == {LATER: b"theirs" * 600}


async def test_a_mirror_that_was_moved_names_its_own_setting(pair: Pair, tmp_path: Path) -> None:
    """Breaks: the hint says KEYS_PATH, and whoever follows it has two mirrors and no keys/."""
    new = DiskKeyPlace(tmp_path / "new")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pair.mirror, "vacate", lambda: (_ for _ in ()).throw(FAILS))
        with pytest.raises(Unavailable):
            move(pair.mirror, new)
    with pytest.raises(Denied) as moving:
        await pair.open()
    assert f"KEYS_PATH={pair.mirror.path} lucid keys move {new.path}" in moving.value.hint
    move(pair.mirror, new)
    with pytest.raises(Denied) as moved:
        await pair.open()
    assert (moved.value.code, moved.value.hint) == ("keys.moved", f"set LUCID_KEYS_MIRROR={new.path}")
    pair.mirror = new
    await pair.open()
