"""Copies of keys/ put back: what returns, what stays erased, and what a crash in the middle leaves."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from handlers.crypto.key_file import build_key_file
from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.errors import Denied, LucidError, Misuse, Unavailable
from schemas.format import dsse
from schemas.format.file_names import tombstone_name
from schemas.format.trust import Tombstone
from streams.keys.copies import Copied, copies_made, make_copy, restore
from streams.keys.folder import LoggedKeyFolder, order_erasure
from streams.roles.drivers import Installation, new_file
from streams.roles.services import run_conductor, run_worker
from tests.support.machine.waiting import PATIENCE_S
from tests.support.pipeline.conducted import World, connected, running

PASSPHRASE = "kilimanjaro horse battery"
KEPT, DESTROYED, EARLIER, LATER = (bytes([number]) * 16 for number in range(1, 5))


class PowerFailsError(Exception):
    """Nothing after this happens."""


class Keys:
    """An installation's keys/, and its log."""

    def __init__(self, world: World, path: Path) -> None:
        self.world, self.path = world, world.data.path / "keys"
        self.copy_at = path / "copy.lucid-keys"

    @property
    def folder(self) -> LoggedKeyFolder:
        return self.world.here.logged_keys(self.world.jet)

    def make(self, uid: bytes) -> bytes:
        here = self.world.here
        version, master = here.keyring.newest()
        return here.key_files.make(uid, build_key_file(master, version, uid, uid * 2))

    def held(self, uid: bytes) -> bytes | None:
        file = self.world.here.key_files.open(uid)
        if file is None:
            return None
        file.close()
        return file.data

    async def destroy(self, uid: bytes) -> None:
        await order_erasure(self.world.jet, uid)
        self.world.here.key_files.erase(uid)

    async def copy(self, name: str = "", until_us: int = 5) -> Copied:
        here = self.world.here
        target = self.copy_at.with_name(name) if name else self.copy_at
        with new_file(target) as file:
            return await make_copy(
                *(self.world.jet, here.key_folder, here.key_files, file, PASSPHRASE),
                label="one",
                until_us=until_us,
            )

    def restore(self, name: str = "", passphrase: str = PASSPHRASE, *, newest: bool = False) -> Copied:
        here = self.world.here
        source = self.copy_at.with_name(name) if name else self.copy_at
        return restore(here.key_folder, here.key_files, here.keyring, source, passphrase, newest=newest)


@pytest.fixture
async def keys(server: NatsServer, tmp_path: Path) -> AsyncIterator[Keys]:
    async with connected(server, tmp_path) as world:
        keys = Keys(world, tmp_path)
        await keys.folder.open()
        yield keys


async def test_a_copy_from_before_a_destroy_does_not_bring_the_destroyed_key_back(keys: Keys) -> None:
    """Breaks: who destroys a session and restores last week's keys can watch it again."""
    kept, _, earlier = keys.make(KEPT), keys.make(DESTROYED), keys.make(EARLIER)
    await keys.destroy(EARLIER)
    await keys.folder.open()
    assert (await keys.copy()).sessions == 2
    await keys.destroy(DESTROYED)
    shutil.rmtree(keys.path)
    assert keys.restore().sessions == 2
    assert keys.held(DESTROYED), "it is in the copy: this test can fail"
    await keys.folder.open()
    assert keys.held(DESTROYED) == b""
    assert keys.held(KEPT) == kept
    assert keys.held(EARLIER) == b"", "the fence of an older erasure is there, too"
    assert earlier


async def test_no_copy_is_put_back_below_a_service_that_uses_the_keys(keys: Keys) -> None:
    """Breaks: beside a service on another server a destroyed key returns, and it goes on serving it."""
    keys.make(DESTROYED)
    await keys.copy()
    await keys.destroy(DESTROYED)
    using = keys.folder
    await using.open()
    with pytest.raises(Unavailable, match=r"keys\.busy"):
        keys.restore()
    await using.check()
    assert keys.held(DESTROYED) == b""
    del using
    assert keys.restore().sessions == 1


async def test_a_folder_put_back_by_hand_is_brought_up_to_the_log(keys: Keys, tmp_path: Path) -> None:
    """Breaks: the operator copies keys/ back with cp, and what was destroyed opens."""
    keys.make(DESTROYED)
    kept = keys.make(KEPT)
    shutil.copytree(keys.path, tmp_path / "by-hand")
    await keys.destroy(DESTROYED)
    await keys.folder.open()
    await keys.destroy(LATER)
    shutil.rmtree(keys.path)
    shutil.copytree(tmp_path / "by-hand", keys.path)
    await keys.folder.open()
    assert (keys.held(DESTROYED), keys.held(LATER), keys.held(KEPT)) == (b"", b"", kept)


async def test_a_log_that_was_put_back_is_walked_from_its_beginning(keys: Keys, tmp_path: Path) -> None:
    """Breaks: after an older log came back, an older keys/ opens what was destroyed since."""
    keys.make(DESTROYED)
    keys.world.here.key_folder.note_erased(1_000_000)  # by the log that is gone
    shutil.copytree(keys.path, tmp_path / "older")
    await keys.destroy(DESTROYED)
    shutil.rmtree(keys.path)
    shutil.copytree(tmp_path / "older", keys.path)
    await keys.folder.open()
    assert keys.held(DESTROYED) == b""


async def test_a_stray_message_hides_no_erasure(keys: Keys, tmp_path: Path) -> None:
    """Breaks: one message under the name of a session's erasure, and an older keys/ opens it for ever."""
    keys.make(DESTROYED)
    shutil.copytree(keys.path, tmp_path / "older")
    await keys.world.jet.publish(subjects.erasure(DESTROYED), b"{}")
    for _ in range(2):
        await keys.destroy(DESTROYED)
    assert (await keys.world.jet.subject_counts(subjects.LIFECYCLE, subjects.ALL_ERASURES)) == {
        subjects.erasure(DESTROYED): 2
    }
    shutil.rmtree(keys.path)
    shutil.copytree(tmp_path / "older", keys.path)
    await keys.folder.open()
    assert keys.held(DESTROYED) == b""


async def test_a_start_walks_only_erasures_that_its_folder_may_lack(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: every start reads every erasure that there ever was."""
    for uid in (DESTROYED, EARLIER):
        keys.make(uid)
        await keys.destroy(uid)
    await keys.folder.open()
    monkeypatch.setattr(keys.world.jet, "read_all", None)
    await keys.folder.open()


async def test_keys_made_since_the_copy_stay_when_it_is_put_back(keys: Keys) -> None:
    """Breaks: a restore takes away the keys of sessions that were sealed meanwhile."""
    first = keys.make(KEPT)
    await keys.copy()
    later = keys.make(LATER)
    here = keys.world.here
    version = here.keyring.add_version()
    rotated = build_key_file(here.keyring.newest()[1], version, KEPT, KEPT * 2)
    here.key_files.replace(KEPT, lambda _: rotated)
    here.key_files.erase(EARLIER)
    await keys.folder.note()
    keys.restore()
    assert (keys.held(KEPT), keys.held(LATER), keys.held(EARLIER)) == (rotated, later, b"")
    assert first != rotated
    await keys.folder.open()


async def test_copies_go_back_in_any_order(keys: Keys) -> None:
    """Breaks: who put an older copy back cannot put the newer one back any more."""
    keys.make(KEPT)
    await keys.copy("old")
    later = keys.make(LATER)
    keys.world.here.keyring.add_version()
    await keys.folder.note()
    await keys.copy("new")
    shutil.rmtree(keys.path)
    keys.restore("old")
    with pytest.raises(Denied, match="lacks master key version 2"):
        await keys.folder.open()
    keys.restore("new")
    await keys.folder.open()
    assert keys.held(LATER) == later


async def test_the_only_copy_serves_though_it_is_older_when_a_person_says_so_and_only_once(
    keys: Keys, tmp_path: Path
) -> None:
    """Breaks: the only copy is older than a rotation: nothing opens, or two keys have one number."""
    kept = keys.make(KEPT)
    await keys.copy()
    shutil.copytree(keys.path, tmp_path / "older")
    keys.world.here.keyring.add_version()
    await keys.folder.note()
    shutil.rmtree(keys.path)
    keys.restore()
    with pytest.raises(Denied, match=r"keys\.older") as refused:
        await keys.folder.open()
    assert "--newest" in refused.value.hint
    keys.restore(newest=True)
    await keys.folder.open()
    assert keys.held(KEPT) == kept
    assert sorted(keys.world.here.keyring.keks()) == [1, 3], "the number of the lost one is never used again"
    await keys.folder.open()
    shutil.rmtree(keys.path)
    shutil.copytree(tmp_path / "older", keys.path)
    with pytest.raises(Denied, match=r"keys\.older"):
        await keys.folder.open()


async def test_a_damaged_file_is_put_back(keys: Keys) -> None:
    """Breaks: a bit that flipped in keys/ cannot be mended by the copy that was made for it."""
    kept = keys.make(KEPT)
    await keys.copy()
    master = keys.path / "master-00000001.json"
    whole = master.read_bytes()
    master.write_bytes(whole[:20])
    session = keys.path / "sessions" / KEPT.hex()[:2] / f"{KEPT.hex()}.key"
    session.write_bytes(b"\0" * 4096)
    keys.restore()
    assert (master.read_bytes(), keys.held(KEPT)) == (whole, kept)
    await keys.folder.open()


@pytest.mark.parametrize("place", [4, 8, 50, 100, 2000])
async def test_a_key_file_with_a_flipped_bit_is_put_back(keys: Keys, place: int) -> None:
    """Breaks: a session is lost for a bit that the copy has, and the restore says that all is well."""
    kept, later = keys.make(KEPT), keys.make(LATER)
    await keys.copy()
    session = keys.path / "sessions" / KEPT.hex()[:2] / f"{KEPT.hex()}.key"
    session.write_bytes(bytes(byte ^ (at == place) for at, byte in enumerate(kept)))
    keys.restore()
    assert (keys.held(KEPT), keys.held(LATER)) == (kept, later)


async def test_a_copy_that_was_made_of_a_damaged_file_harms_no_whole_one(keys: Keys) -> None:
    """Breaks: a newer copy takes away what an older one mended."""
    kept = keys.make(KEPT)
    session = keys.path / "sessions" / KEPT.hex()[:2] / f"{KEPT.hex()}.key"
    session.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    await keys.copy()
    session.write_bytes(kept)
    keys.restore()
    assert keys.held(KEPT) == kept


async def test_a_copy_of_another_installation_changes_nothing(keys: Keys, tmp_path: Path) -> None:
    """Breaks: the wrong file mixes the keys of two installations."""
    await keys.copy()
    before = (keys.path / "installation").read_bytes()
    (keys.path / "installation").write_bytes(b"f" * 16)
    with pytest.raises(Denied, match=r"keys\.foreign"):
        keys.restore()
    assert not (keys.path / "restoring").exists()
    (keys.path / "installation").write_bytes(before)
    signer = keys.path / "signer.json"
    signer.write_text('{"name": "signer-x", "seed": "00"}')
    with pytest.raises(Denied, match=r"keys\.foreign"):
        keys.restore()
    for broken, passphrase in (
        (b"not a copy", PASSPHRASE),
        (None, "kilimanjaro horse cattery"),
        (None, "short"),
    ):
        if broken:
            (tmp_path / "broken").write_bytes(broken)
        with pytest.raises((Denied, Misuse)):
            keys.restore("broken" if broken else "", passphrase)
    assert not (keys.path / "restoring").exists()


@pytest.mark.parametrize("place", range(1, 12))
async def test_a_restore_that_a_power_failure_interrupts_is_completed_by_the_next(
    keys: Keys, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    """Breaks: half of the keys serve, and the next start makes nothing of the other half."""
    made = {uid: keys.make(uid) for uid in (KEPT, LATER)}
    keys.make(DESTROYED)
    await keys.copy()
    await keys.destroy(DESTROYED)
    shutil.rmtree(keys.path)
    here, effects = keys.world.here, 0

    def struck(target: Any, name: str) -> None:
        whole = getattr(target, name)

        def call(*arguments: Any) -> Any:
            nonlocal effects
            effects += 1
            if effects == place:
                raise PowerFailsError
            return whole(*arguments)

        monkeypatch.setattr(target, name, call)

    for target, name in (
        *(
            (here.key_folder, name)
            for name in ("begin_restore", "note_erased", "put_back", "join", "end_restore")
        ),
        (here.key_files, "put_back"),
    ):
        struck(target, name)
    try:
        restore(here.key_folder, here.key_files, here.keyring, keys.copy_at, PASSPHRASE)
        pytest.fail(f"only {effects} effects")
    except PowerFailsError:
        with pytest.raises(LucidError, match=r"keys\.(restoring|missing)"):
            await keys.folder.open()
        keys.restore()
    await keys.folder.open()
    assert {uid: keys.held(uid) for uid in made} == made
    assert keys.held(DESTROYED) == b""


async def test_the_log_knows_of_a_copy_before_its_first_key_is_read(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a key that is erased while a copy is made lives on in a copy that no tombstone names."""
    keys.make(KEPT)

    def fails(*_: Any) -> None:
        raise PowerFailsError

    with monkeypatch.context() as patched:
        patched.setattr(type(keys.world.here.key_files), "open", fails)
        with pytest.raises(PowerFailsError):
            await keys.copy(until_us=77)
    assert [one.until_us for one in await copies_made(keys.world.jet)] == [77]
    assert not keys.copy_at.exists()
    assert list(keys.copy_at.parent.glob(".copy*")) == []
    await keys.copy(until_us=time.time_ns() // 1000)
    with pytest.raises(Misuse, match=r"export\.exists"):
        await keys.copy()


async def test_a_destroyed_session_stays_destroyed_under_older_keys_and_its_tombstone_names_the_copies(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: yesterday's keys/ opens what was destroyed today, or nobody knows which copy still can."""
    async with connected(server, tmp_path) as world:
        keys, uids, end_us = Keys(world, tmp_path), {}, 1_900_000_000_000_000
        async with running(run_conductor, world), running(run_worker, world):
            await world.answered()
            await keys.copy("before", until_us=end_us * 2)
            for name in ("demo-01", "demo-02"):
                host = await world.start(name)
                await host.record(2)
                await host.final()
                uids[name] = host.grant.uid
            for name in uids:
                await world.until(name, "STOPPED")
            await keys.copy("while", until_us=end_us)
            await keys.copy("shorter", until_us=end_us - 1)
            shutil.copytree(keys.path, tmp_path / "older")
            await world.ask("destroy", "demo-01", reason="over")
            await keys.copy("after", until_us=end_us + 1)
        stone = (world.data.manifests / tombstone_name(uids["demo-01"])).read_bytes()
        assert Tombstone.within(dsse.parse(stone, dsse.TOMBSTONE)).backups_until_us == end_us
        shutil.rmtree(keys.path)
        shutil.copytree(tmp_path / "older", keys.path)
        assert keys.held(uids["demo-01"]), "it is in the older folder: this test can fail"
        async with running(run_conductor, world):
            await world.answered()
            assert keys.held(uids["demo-01"]) == b""
            assert keys.held(uids["demo-02"])


async def test_nothing_is_called_erased_while_its_folder_is_not_there(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: the disk of keys/ is not mounted, and a tombstone says that a key on it is gone."""
    async with connected(server, tmp_path) as world, running(run_conductor, world):
        await world.answered()
        host = await world.start("demo-01")
        keys = Keys(world, tmp_path)
        keys.path.rename(tmp_path / "elsewhere")
        keys.path.mkdir()
        asked = asyncio.create_task(world.ask("destroy", "demo-01", reason="over"))
        await world.until("demo-01", "CLEANUP")
        await asyncio.sleep(0.5)
        stone = world.data.manifests / tombstone_name(host.grant.uid)
        assert not stone.exists()
        assert list(keys.path.rglob("*.key")) == []
        keys.path.rmdir()
        (tmp_path / "elsewhere").rename(keys.path)
        await asked
        assert stone.exists()
        assert keys.held(host.grant.uid) == b""


@pytest.mark.parametrize("call", ["start", "destroy"])
async def test_no_key_is_made_or_erased_in_a_folder_that_took_the_place_of_keys(
    server: NatsServer, tmp_path: Path, call: str
) -> None:
    """Breaks: the wrong disk is mounted at keys/ while all runs: new keys go with it, erased ones stay."""
    async with connected(server, tmp_path) as world, running(run_conductor, world):
        await world.answered()
        keys, other = Keys(world, tmp_path), Installation(replace(world.settings, data=tmp_path / "other"))
        uid = (await world.start("demo-01")).grant.uid
        other.key_folder.begin()
        other.keyring.begin()
        other.signers.begin()
        before = keys.held(uid)
        keys.path.rename(tmp_path / "ours")
        other.key_folder.path.rename(keys.path)
        if call == "destroy":
            asked = asyncio.create_task(world.ask("destroy", "demo-01", reason="over"))
            await world.until("demo-01", "CLEANUP")
        else:
            asked = asyncio.create_task(world.start("demo-02"))
            begun = subjects.lifecycle("demo-02")
            async with asyncio.timeout(PATIENCE_S):
                while (await world.jet.subject_counts(subjects.LIFECYCLE, begun)).get(begun, 0) < 2:  # noqa: ASYNC110 - a test looks from outside
                    await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        assert not (keys.path / "sessions").exists()
        keys.path.rename(tmp_path / "theirs")
        (tmp_path / "ours").rename(keys.path)
        assert keys.held(uid) == before
        await asked
        assert bool(keys.held(uid)) == (call == "start")
