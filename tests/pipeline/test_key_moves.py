"""keys/ moved to another folder: what arrives, what starts in between, and what a crash leaves."""

import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from handlers.crypto.key_file import build_key_file
from infra.keys import place as one_place
from infra.keys.place import DiskKeyPlace
from infra.nats_server.server import NatsServer
from schemas.errors import Denied, Misuse, Unavailable
from streams.keys.folder import order_erasure
from streams.keys.move import Moved, move
from streams.roles.drivers import Installation
from tests.support.pipeline.conducted import World, connected
from tests.support.pipeline.mirrored import held

KEPT, DESTROYED, LATER = (bytes([number]) * 16 for number in range(1, 4))


class PowerFailsError(Exception):
    """Nothing after this happens."""


class Move:
    """An installation whose keys/ is moved."""

    def __init__(self, world: World, path: Path) -> None:
        self.world, self.path = world, path
        self.old, self.new = DiskKeyPlace(world.data.path / "keys"), DiskKeyPlace(path / "new")
        self.made: dict[bytes, bytes] = {}

    def here(self, place: DiskKeyPlace) -> Installation:
        settings = replace(self.world.settings, data=self.world.data.path, keys_path=place.path)
        return Installation(settings)

    async def open(self, place: DiskKeyPlace) -> None:
        await self.here(place).logged_keys(self.world.jet).open()

    async def prepare(self) -> None:
        await self.open(self.old)
        here = self.here(self.old)
        version, master = here.keyring.newest()
        for uid in (KEPT, DESTROYED, LATER):
            self.made[uid] = here.key_files.make(uid, build_key_file(master, version, uid, uid * 2))
        await order_erasure(self.world.jet, DESTROYED)
        here.key_files.erase(DESTROYED)
        await self.open(self.old)

    async def refused(self, place: DiskKeyPlace) -> str:
        """The code of what a start there says; empty: it starts."""
        try:
            await self.open(place)
        except Denied as error:
            return error.code
        return ""

    async def is_complete(self) -> None:
        assert held(self.new) == {**self.made, DESTROYED: b""}
        assert [path.name for path in self.old.path.iterdir()] == ["moved"]
        await self.open(self.new)
        with pytest.raises(Denied, match=r"keys\.moved") as refused:
            await self.open(self.old)
        assert refused.value.hint == f"set KEYS_PATH={self.new.path}"


@pytest.fixture
async def moving(server: NatsServer, tmp_path: Path) -> AsyncIterator[Move]:
    async with connected(server, tmp_path) as world:
        moving = Move(world, tmp_path)
        await moving.prepare()
        yield moving


def named(place: DiskKeyPlace) -> set[str]:
    return {path.relative_to(place.path).as_posix() for path in place.path.rglob("*") if path.is_file()}


async def test_moved_keys_serve_in_the_new_folder_and_the_old_one_says_where_they_are(moving: Move) -> None:
    """Breaks: half of keys/ stays behind, or a start in the old folder makes new keys there."""
    before = named(moving.old)
    assert move(moving.old, moving.new).sessions == 2
    assert named(moving.new) == before
    await moving.is_complete()
    assert move(moving.old, moving.new) == Moved(0, 0, "overwritten", resumed=True), "nothing is done again"
    await moving.is_complete()


async def test_keys_can_be_moved_back(moving: Move) -> None:
    """Breaks: the folder that was left refuses to be used again for good."""
    move(moving.old, moving.new)
    moving.old, moving.new = moving.new, moving.old
    move(moving.old, moving.new)
    await moving.is_complete()


async def test_the_bytes_in_the_old_folder_are_overwritten_before_their_names_go(moving: Move) -> None:
    """Breaks: the old disk is sold, and every key is read from its free blocks."""
    left = {
        path: path.open("rb") for path in moving.old.path.rglob("*") if path.is_file() and path.stat().st_size
    }
    content = {path: file.read() for path, file in left.items()}
    assert {path.suffix for path in left} >= {".json", ".key"}
    os.link(moving.old.path / "root.json", moving.path / "another-name")
    move(moving.old, moving.new)
    for path, file in left.items():
        assert os.pread(file.fileno(), 8192, 0) == b"", path
        file.close()
    assert content


async def test_nobody_moves_keys_away_below_who_uses_them(moving: Move) -> None:
    """Breaks: a service finds its keys overwritten, takes its sessions for destroyed, and drops them."""
    using = moving.here(moving.old).logged_keys(moving.world.jet)
    await using.open()
    with pytest.raises(Unavailable, match=r"keys\.busy"):
        move(moving.old, moving.new)
    assert not moving.new.path.exists()
    del using
    with moving.old.alone(), pytest.raises(Unavailable, match=r"keys\.busy"):
        await moving.open(moving.old)
    assert move(moving.old, moving.new).sessions == 2


async def test_a_folder_that_is_not_fit_for_keys_is_refused_and_nothing_is_written(moving: Move) -> None:
    """Breaks: the keys of two installations lie in one folder, or in each other."""
    before, inside = named(moving.old), DiskKeyPlace(moving.old.path / "sessions" / "new")
    full = DiskKeyPlace(moving.path / "full")
    full.path.mkdir()
    (full.path / "theirs").write_bytes(b"stays")
    for new in (moving.old, inside, DiskKeyPlace(moving.old.path.parent), full):
        with pytest.raises(Misuse, match=r"keys\.move"):
            move(moving.old, new)
    with pytest.raises(Denied, match=r"keys\.missing"):
        move(DiskKeyPlace(moving.path / "empty"), moving.new)
    assert named(moving.old) == before
    moving.old.folder.begin_restore()
    with pytest.raises(Denied, match=r"keys\.restoring"):
        move(moving.old, moving.new)
    moving.old.folder.end_restore()
    await moving.open(moving.old)


NOTES = ("begin_leaving", "begin_arriving", "note_left", "vacate", "end_arriving", "end_leaving")
FILLED = ("put_back", "join", "note_erased")
EFFECTS = [f"{name} 0" for name in (*NOTES, *FILLED)]
EFFECTS += [
    "put_back 2",
    "carry 0",
    "carry 1",
    "erase 0",
    "erase 1",
    "erase 2",
    "mark_proven 0",
    "mark_proven 1",
]


def strike(moving: Move, monkeypatch: pytest.MonkeyPatch, wanted: str, form: str) -> None:
    """Let the power fail at one effect: before it is applied, or after."""
    counted: dict[str, int] = {}

    def struck(target: Any, name: str, effect: str) -> None:
        whole: Callable[..., Any] = getattr(target, name)

        def call(*arguments: Any, **more: Any) -> Any:
            number = counted.get(effect, 0)
            counted[effect] = number + 1
            strikes = f"{effect} {number}" == wanted
            if strikes and form == "failed":
                raise PowerFailsError
            result = whole(*arguments, **more)
            if strikes:
                raise PowerFailsError
            return result

        monkeypatch.setattr(target, name, call)

    for name in NOTES:
        struck(moving.new if "arriving" in name else moving.old, name, name)
    for name in FILLED:
        struck(moving.new.folder, name, name)
    struck(moving.new.files, "put_back", "carry")
    struck(moving.old.files, "erase", "erase")
    struck(moving.new.files, "mark_proven", "mark_proven")


@pytest.mark.parametrize("form", ["failed", "applied"])
@pytest.mark.parametrize("effect", EFFECTS)
async def test_a_move_that_a_power_failure_interrupts_loses_nothing_and_is_completed_by_the_same_call(
    moving: Move, monkeypatch: pytest.MonkeyPatch, effect: str, form: str
) -> None:
    """Breaks: half of the keys are in each folder, and the next start makes nothing of either."""
    monkeypatch.setattr("streams.keys.move.WRITERS", 1)
    erase = moving.old.files.erase

    def proven(uid: bytes, **more: Any) -> str:  # as on a disk where it is: then the new file is vouched for
        erase(uid, **more)
        return "overwritten"

    monkeypatch.setattr(moving.old.files, "erase", proven)
    with monkeypatch.context() as patched:
        strike(moving, patched, effect, form)
        with pytest.raises(PowerFailsError):
            move(moving.old, moving.new)
    whole = {**moving.made, DESTROYED: b""}
    for place in (moving.old, moving.new):
        code = await moving.refused(place)
        assert code in ("keys.moving", "keys.moved", "keys.missing", "")
        if not code:
            assert held(place) == whole, "what starts has everything"
    found = [*held(moving.old).items(), *held(moving.new).items()]
    assert {uid: data for uid, data in found if data} == {uid: data for uid, data in whole.items() if data}
    move(moving.old, moving.new)
    await moving.is_complete()


async def test_a_move_that_was_begun_goes_to_no_other_folder(
    moving: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a first try left keys on a disk that nobody overwrites any more."""
    with monkeypatch.context() as patched:
        strike(moving, patched, "carry 1", "failed")
        with pytest.raises(PowerFailsError):
            move(moving.old, moving.new)
    with pytest.raises(Denied, match=r"keys\.moving") as refused:
        move(moving.old, DiskKeyPlace(moving.path / "other"))
    assert refused.value.hint == f"lucid keys move {moving.new.path} completes it, --undo gives it up"
    move(moving.old, moving.new)
    await moving.is_complete()


@pytest.mark.parametrize("form", ["failed", "applied"])
@pytest.mark.parametrize("number", [0, 2, 5])
async def test_emptying_the_old_folder_is_completed_after_a_power_failure_at_any_file(
    moving: Move, monkeypatch: pytest.MonkeyPatch, number: int, form: str
) -> None:
    """Breaks: the master key stays on the old disk, in a folder that says that all of it is moved."""
    remove, count = one_place._removed, iter(range(1000))

    def removed(path: Path) -> bool:
        strikes = next(count) == number
        if strikes and form == "failed":
            raise PowerFailsError
        proven = remove(path)
        if strikes:
            raise PowerFailsError
        return proven

    with monkeypatch.context() as patched:
        patched.setattr(one_place, "_removed", removed)
        with pytest.raises(PowerFailsError):
            move(moving.old, moving.new)
    assert [await moving.refused(one) for one in (moving.old, moving.new)] == ["keys.moving"] * 2
    assert move(moving.old, moving.new).resumed, "it does not say that all was proven"
    await moving.is_complete()
