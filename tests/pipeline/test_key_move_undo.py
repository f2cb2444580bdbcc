"""A move of keys/ that cannot be completed, because its new disk is full, gone, or fails."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from infra.keys.place import DiskKeyPlace
from infra.nats_server.server import NatsServer
from schemas.errors import Denied, NoSpace, RefusedByState
from streams.keys.copies import make_copy, restore
from streams.keys.folder import order_erasure
from streams.keys.mirror import fill
from streams.keys.move import move
from streams.keys.move_undo import undo
from streams.roles.drivers import Installation, new_file
from tests.support.pipeline.conducted import connected
from tests.support.pipeline.mirrored import DESTROYED, KEPT, LATER, Pair, held

PHRASE = "kilimanjaro horse battery"


class PowerFailsError(Exception):
    """Nothing after this happens."""


class Move:
    """An installation without a mirror whose move stops."""

    def __init__(self, pair: Pair, path: Path) -> None:
        self.pair, self.old, self.new = pair, pair.first, DiskKeyPlace(path / "new")
        self.copy_at = path / "copy"

    @property
    def here(self) -> Installation:
        return self.pair.at(self.old, None)

    async def open(self) -> None:
        await self.here.logged_keys(self.pair.world.jet).open()

    async def prepare(self) -> None:
        await self.open()
        for uid in (KEPT, DESTROYED, LATER):
            self.pair.make(uid, self.here)
        with new_file(self.copy_at) as file:
            parts = (self.pair.world.jet, self.here.key_folder, self.here.key_files)
            await make_copy(*parts, file, PHRASE, label="one", until_us=5)
        await order_erasure(self.pair.world.jet, DESTROYED)
        self.here.key_files.erase(DESTROYED)

    def stops(self, target: Any, name: str, error: Exception, after: int = 0) -> None:
        """Begin the move, which fails at one call."""
        whole, count = getattr(target, name), iter(range(1000))

        def call(*arguments: Any, **more: Any) -> Any:
            if next(count) >= after:
                raise error
            return whole(*arguments, **more)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("streams.keys.move.WRITERS", 1)
            patched.setattr(target, name, call)
            with pytest.raises(type(error)):
                move(self.old, self.new)


@pytest.fixture
async def moving(server: NatsServer, tmp_path: Path) -> AsyncIterator[Move]:
    async with connected(server, tmp_path) as world:
        moving = Move(Pair(world, tmp_path), tmp_path)
        await moving.prepare()
        yield moving


FULL = NoSpace("no space", code="keys.space")


@pytest.mark.parametrize("is_lost", [False, True])
@pytest.mark.parametrize("step", ["begin_arriving", "put_back", "note_left"])
async def test_a_move_to_a_disk_that_is_full_or_lost_is_given_up(
    moving: Move, monkeypatch: pytest.MonkeyPatch, step: str, is_lost: bool
) -> None:
    """Breaks: nothing starts any more, until somebody removes notes by hand and keeps false proofs."""
    before = held(moving.old)
    target = {"put_back": moving.new.files, "note_left": moving.old}.get(step, moving.new)
    moving.stops(target, step, FULL, after=step == "put_back")
    with pytest.raises(Denied, match=r"keys\.moving"):
        await moving.open()
    if is_lost:
        shutil.rmtree(moving.new.path)
    doubted: list[bytes] = []
    monkeypatch.setattr(moving.old.files, "mark_unproven", doubted.append)
    undone = undo(moving.old, moving.new)
    assert undone.overwritten is (not is_lost and step != "begin_arriving")
    assert not undone.is_partial
    assert len(doubted) == undone.unproven
    if not undone.overwritten:
        assert sorted(doubted) == [KEPT, LATER], "their bytes may lie on that disk"
    assert held(moving.old) == before
    assert not list(moving.new.path.rglob("*")), "no key is left there"
    await moving.open()
    with pytest.raises(RefusedByState, match=r"keys\.not_moving"):
        undo(moving.old, moving.new)
    assert move(moving.old, moving.new).sessions == 2
    assert held(moving.new) == before


async def test_keys_that_a_move_overwrote_come_back_from_the_copy_and_erased_ones_do_not(
    moving: Move, tmp_path: Path
) -> None:
    """Breaks: the new disk dies last, and what the old one has, and the copy, cannot be brought together."""
    before = held(moving.old)
    moving.stops(moving.old.files, "erase", PowerFailsError(), after=2)  # DESTROYED when carried, then KEPT
    assert held(moving.old) == {**before, KEPT: b""}
    with pytest.raises(Denied, match="has all keys") as refused:
        undo(moving.old, moving.new)
    assert refused.value.code == "keys.moving"
    shutil.rmtree(moving.new.path)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(moving.old, "end_leaving", lambda: (_ for _ in ()).throw(PowerFailsError()))
        with pytest.raises(PowerFailsError):
            undo(moving.old, moving.new)
    undo(moving.old, moving.new)
    assert held(moving.old) == {LATER: before[LATER]}, "what is empty would count as erased for ever"
    here = moving.here
    restore(here.key_folder, here.key_files, here.keyring, moving.copy_at, PHRASE)
    await moving.open()
    assert held(moving.old) == before


async def test_keys_that_a_move_overwrote_come_back_from_the_mirror(moving: Move) -> None:
    """Breaks: the overwritten files look like erasures, and the mirror erases the same keys."""
    pair = moving.pair
    both = pair.here
    fill(moving.old, pair.mirror, both.key_folder, both.key_files, both.keyring)
    before = held(moving.old)
    moving.stops(moving.old.files, "erase", PowerFailsError(), after=2)
    shutil.rmtree(moving.new.path)
    assert undo(moving.old, moving.new).is_partial
    await pair.open()
    assert held(moving.old) == held(pair.mirror) == before
