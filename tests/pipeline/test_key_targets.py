"""The target of a move, or of a mirror, that is another installation's, is lost, or is no place for keys."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infra.keys.place import DiskKeyPlace
from infra.nats_server.server import NatsServer
from schemas.errors import Denied, LucidError, Misuse, Unavailable
from streams.keys.mirror import end, fill
from streams.keys.move import move
from tests.support.pipeline.conducted import connected
from tests.support.pipeline.mirrored import KEPT, LATER, Pair, held, small_files


class PowerFailsError(Exception):
    """Nothing after this happens."""


def fails(*_: object, **__: object) -> None:
    raise PowerFailsError


@pytest.fixture
async def pair(server: NatsServer, tmp_path: Path) -> AsyncIterator[Pair]:
    async with connected(server, tmp_path) as world:
        pair = Pair(world, tmp_path)
        await pair.open()
        for uid in (KEPT, LATER):
            pair.make(uid)
        yield pair


@pytest.fixture
def theirs(tmp_path: Path) -> DiskKeyPlace:
    """The keys of another installation."""
    place = DiskKeyPlace(tmp_path / "theirs")
    place.folder.begin()
    place.folder.join()
    place.folder.put_back("master-00000001.json", b'{"version": 1}')
    place.files.make(LATER, b"theirs" * 600)
    return place


def interrupted(old: DiskKeyPlace, new: DiskKeyPlace, name: str) -> None:
    """A move whose power fails at one step."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(old, name, fails)
        with pytest.raises(PowerFailsError):
            move(old, new)


def content(*places: DiskKeyPlace) -> list[object]:
    return [(held(place), small_files(place)) for place in places]


async def test_the_keys_of_another_installation_are_never_written_over(
    pair: Pair, theirs: DiskKeyPlace, tmp_path: Path
) -> None:
    """Breaks: a move stops half-way, another one names its target, and a master key is lost for ever."""
    target = DiskKeyPlace(tmp_path / "new")
    interrupted(theirs, target, "vacate")
    before = content(target, pair.first)
    with pytest.raises(Denied, match=r"keys\.foreign"):
        move(pair.first, target)
    here = pair.here
    with pytest.raises(Denied, match=r"keys\.foreign"):
        fill(pair.first, target, here.key_folder, here.key_files, here.keyring)
    assert content(target, pair.first) == before
    assert move(theirs, target).sessions == 0
    assert held(target) == {LATER: b"theirs" * 600}


@pytest.mark.parametrize("left", ["no folder", "an empty folder"])
async def test_nothing_more_is_overwritten_while_the_new_disk_is_not_there(
    pair: Pair, tmp_path: Path, left: str
) -> None:
    """Breaks: the machine restarts during a move without the new disk, and the last keys are overwritten."""
    target, elsewhere = DiskKeyPlace(tmp_path / "new"), tmp_path / "elsewhere"
    whole = held(pair.first)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pair.first.files, "erase", fails)
        with pytest.raises(PowerFailsError):
            move(pair.first, target)
    target.path.rename(elsewhere)
    if left == "an empty folder":
        target.path.mkdir()
    with pytest.raises(Denied, match=r"keys\.missing"):
        move(pair.first, target)
    assert held(pair.first) == whole
    if left == "an empty folder":
        assert not list(target.path.iterdir())
        target.path.rmdir()
    elsewhere.rename(target.path)
    assert move(pair.first, target).sessions == 2
    assert held(target) == whole


async def test_two_installations_never_move_into_one_folder_at_once(
    pair: Pair, theirs: DiskKeyPlace, tmp_path: Path
) -> None:
    """Breaks: both find the folder empty, and one master key lands on the other."""
    target = DiskKeyPlace(tmp_path / "new")
    target.path.mkdir()
    before = content(theirs)
    with target.alone(), pytest.raises(Unavailable, match=r"keys\.busy"):
        move(theirs, target)
    assert content(theirs) == before, "and no note of a move bars the start"
    here = pair.here
    with target.alone(), pytest.raises(Unavailable, match=r"keys\.busy"):
        fill(theirs, target, here.key_folder, here.key_files, here.keyring)
    assert content(theirs) == before


async def test_a_target_that_can_take_no_keys_leaves_the_old_folder_in_use(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a slip of the finger names a folder that cannot be written, and nothing starts any more."""
    (tmp_path / "file").write_bytes(b"stays")
    before = small_files(pair.first)
    with pytest.raises(Misuse, match=r"config\.path"):
        move(pair.first, DiskKeyPlace(tmp_path / "file"))
    monkeypatch.setattr(
        "infra.keys.place.medium", lambda _: type("M", (), {"is_network": True, "kind": "nfs"})
    )
    with pytest.raises(Misuse, match=r"keys\.network"):
        move(pair.first, DiskKeyPlace(tmp_path / "new"))
    assert small_files(pair.first) == before
    monkeypatch.undo()
    await pair.open()


async def test_the_name_of_a_new_folder_is_durable_before_a_key_lies_in_it(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: the power fails after a move, and the folder with all keys is not there any more."""
    synced: set[Path] = set()
    fsync = os.fsync

    def noted(file: int) -> None:
        fsync(file)
        synced.add(Path(f"/proc/self/fd/{file}").resolve())

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(pair.first, "begin_leaving", fails)
    with pytest.raises(PowerFailsError):
        move(pair.first, DiskKeyPlace(tmp_path / "a" / "b" / "c"))
    assert {tmp_path, tmp_path / "a", tmp_path / "a" / "b"} <= synced


@pytest.mark.parametrize("crashes", [False, True])
async def test_a_mirror_that_is_given_up_during_a_start_takes_no_key_with_it(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, crashes: bool
) -> None:
    """Breaks: the start finds the mirror erased, and erases every key of keys/, too."""
    whole, here = held(pair.first), pair.here
    reconcile = here.key_folder.reconcile
    refused: list[LucidError] = []

    def ended_meanwhile() -> None:
        reconcile()
        if crashes:
            monkeypatch.setattr(pair.mirror, "vacate", fails)
        try:
            end(pair.first, pair.mirror)
        except PowerFailsError:
            pass
        except LucidError as error:
            refused.append(error)

    monkeypatch.setattr(here.key_folder, "reconcile", ended_meanwhile)
    code = await pair.refused(here)
    assert held(pair.first) == whole
    assert [error.code for error in refused] == ["keys.busy"], "who starts holds both folders already"
    assert code == ""
    assert held(pair.mirror) == whole


async def test_a_mirror_that_was_given_up_is_filled_by_no_start(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a start that was under way puts the master key back on a disk that is called overwritten."""
    here = pair.here
    use = here.key_folder.use

    def ended_before() -> None:
        monkeypatch.setattr(here.key_folder, "use", use)
        end(pair.first, pair.mirror)
        use()

    monkeypatch.setattr(here.key_folder, "use", ended_before)
    assert await pair.refused(here) in ("keys.io", "keys.mirror")
    assert await pair.refused(here) == "keys.mirror"
    assert not list(pair.mirror.path.glob("**/*"))


async def test_a_file_that_is_no_key_is_never_overwritten_with_the_keys(pair: Pair, tmp_path: Path) -> None:
    """Breaks: the only copy of keys/ lies in keys/ itself, or in its mirror, and a move destroys it."""
    for place in (pair.first, pair.mirror):
        (place.path / "weekly.lucid-keys").write_bytes(b"the only copy")
    with pytest.raises(Misuse, match=r"weekly.*keys\.move"):
        move(pair.first, DiskKeyPlace(tmp_path / "new"))
    with pytest.raises(Misuse, match=r"weekly.*keys\.move"):
        end(pair.first, pair.mirror)
    await pair.open()
    for place in (pair.first, pair.mirror):
        (place.path / "weekly.lucid-keys").unlink()
    assert end(pair.first, pair.mirror).sessions == move(pair.first, DiskKeyPlace(tmp_path / "new")).sessions
