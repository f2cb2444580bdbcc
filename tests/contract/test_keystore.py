"""Data keys of sessions over key files: made once, held while used, rotated, erased."""

import asyncio
import gc
import os
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path

import pytest

from handlers.crypto.key_file import read_head
from handlers.crypto.keys import SessionKeys
from infra.keys.master import Keyring
from infra.keys.session_keys import DiskKeyFiles
from schemas.errors import Denied, NoSpace, RefusedByState, Unavailable
from streams.keys import held_keys
from streams.keys.keystore import WRITERS, KeyStore
from tests.support.machine.waiting import until

UID = b"u" * 16


class Here:
    """One installation's keys, and as many processes over them as a test wants."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files, self.master = DiskKeyFiles(folder / "sessions"), Keyring(folder)
        self.master.begin()

    def store(self) -> KeyStore:
        return KeyStore(DiskKeyFiles(self.folder / "sessions"), Keyring(self.folder))

    def raw(self, uid: bytes = UID) -> bytes | None:
        opened = self.files.open(uid)
        if opened is None:
            return None
        opened.close()
        return opened.data

    def version(self, uid: bytes = UID) -> int:
        return read_head(self.raw(uid) or b"").master_version


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


async def dek(store: KeyStore, uid: bytes = UID, key_id: bytes = b"") -> bytes | None:
    async with store.using(uid, key_id) as held:
        return held.keys.dek if held else None


async def test_of_many_conductors_one_makes_the_key(here: Here) -> None:
    """Breaks: a host seals to one key and the worker opens with another."""
    made = await asyncio.gather(*(here.store().make(UID) for _ in range(10)))
    assert len({keys.dek for keys in made}) == 1
    assert await dek(here.store(), key_id=made[0].dek_id) == made[0].dek


async def test_a_key_that_is_not_there_yet_is_waited_for_and_never_made_by_a_reader(here: Here) -> None:
    """Breaks: a worker makes a key of its own."""
    with pytest.raises(Unavailable) as error:
        await dek(here.store())
    assert error.value.code == "keys.pending"
    assert here.raw() is None


async def test_another_key_than_the_log_names_is_denied(here: Here) -> None:
    """Breaks: chunks are sealed under a key that no manifest names."""
    store = here.store()
    keys = await store.make(UID)
    async with store.using(UID, keys.dek_id):
        for other in (store, here.store()):
            with pytest.raises(Denied) as error:
                await dek(other, key_id=b"x" * 16)
            assert error.value.code == "keys.other"


async def test_a_key_is_let_go_when_nobody_works_with_it(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: the key of a destroyed session is in a process's memory for as long as it runs."""
    monkeypatch.setattr(held_keys, "LINGER_S", 0.02)
    store = here.store()
    await store.make(UID)
    gc.collect()  # what earlier tests left open is not counted
    files = len(os.listdir("/proc/self/fd"))
    async with store.using(UID) as one, store.using(UID) as two:
        assert one is two, "two jobs of one session read it twice"
        assert one is not None
        kept: weakref.ref[SessionKeys] = weakref.ref(one.keys)
    del one, two
    await until(lambda: not store._held)
    gc.collect()
    assert kept() is None
    assert len(os.listdir("/proc/self/fd")) == files


async def test_the_next_stage_of_a_chunk_finds_the_key_of_the_stage_before(here: Here) -> None:
    """Breaks: every stage of every chunk reads and opens the key file again."""
    store = here.store()
    await store.make(UID)
    async with store.using(UID) as before:
        pass
    async with store.using(UID) as after:
        assert before is after


async def test_an_unused_key_does_not_outlive_its_erasure(here: Here) -> None:
    """Breaks: the next job of a destroyed session gets the key that the job before it used."""
    worker, conductor = here.store(), here.store()
    await conductor.make(UID)
    for store in (worker, conductor):
        assert await dek(store) is not None
        assert store._held.get(UID) is not None, "it lingers"
    await conductor.erase(UID)
    assert conductor._held.get(UID) is None
    assert await dek(worker) is None
    assert worker._held.get(UID) is None


async def test_many_unused_keys_leave_the_process_its_files(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a thousand short chunks in one second leave the worker no file to open."""
    monkeypatch.setattr(held_keys, "HELD_MOST", 3)
    store, uids = here.store(), [bytes([n]) * 16 for n in range(9)]
    for uid in uids:
        await store.make(uid)
        assert await dek(store, uid) is not None
    assert len(store._held) == 3


async def test_a_key_in_use_does_not_outlive_its_erasure(here: Here) -> None:
    """Breaks: a job that read the key before it was erased publishes what it made with it."""
    worker, conductor = here.store(), here.store()
    await conductor.make(UID)
    async with worker.using(UID) as held:
        assert held is not None
        await worker.check(held)
        await conductor.erase(UID)
        for look in (worker.check(held), asyncio.to_thread(held.check)):
            with pytest.raises(RefusedByState) as error:
                await look
            assert error.value.code == "keys.shredded"
        assert await dek(worker) is None, "it is handed to the next job while this one has it"
    assert await dek(worker) is None


async def test_a_rotation_goes_unnoticed_by_who_works_with_a_key(here: Here) -> None:
    """Breaks: every job that is under way while keys are rotated fails."""
    worker, conductor = here.store(), here.store()
    keys = await conductor.make(UID)
    async with worker.using(UID) as held:
        assert held is not None
        here.master.add_version()
        assert (await conductor.rotate())[:2] == (2, 1)
        assert not held.stands()
        await worker.check(held)
        assert held.stands()
        assert await dek(worker) == held.keys.dek == keys.dek
        await conductor.erase(UID)
        with pytest.raises(RefusedByState):
            await worker.check(held)


async def test_rotation_keeps_the_key_and_leaves_no_old_file(here: Here) -> None:
    """Breaks: a rotation loses keys, or leaves files that the old master key opens."""
    store, uids = here.store(), [bytes([n]) * 16 for n in range(12)]
    made = {uid: (await store.make(uid)).dek for uid in uids}
    old = {uid: here.raw(uid) for uid in uids}
    here.master.add_version()
    assert (await store.rotate())[:2] == (2, 12)
    assert await store.rotate() == (2, 0, 0, (), b"")
    (here.folder / "master-00000001.json").unlink()
    fresh = here.store()
    assert {uid: await dek(fresh, uid) for uid in uids} == made
    assert all(here.raw(uid) != old[uid] for uid in uids)
    assert list(here.files.root.glob("??/.*")) == []


async def test_a_rotation_of_many_keys_goes_on_from_answer_to_answer(here: Here) -> None:
    """Breaks: with tens of thousands of sessions no answer comes in time, and its outcome is not told."""
    store, uids = here.store(), [bytes([n]) * 16 for n in range(40)]
    for uid in uids:
        await store.make(uid)
    here.master.add_version()
    done, calls, rewrapped = await store.rotate(most_s=0), 1, 0
    while done.after:
        calls, rewrapped = calls + 1, rewrapped + done.rewrapped
        done = await store.rotate(done.after, most_s=0)
    assert rewrapped + done.rewrapped == len(uids)
    assert calls == len(uids) // WRITERS
    assert {here.version(uid) for uid in uids} == {2}


async def test_of_three_rotations_at_once_each_completes(here: Here) -> None:
    """Breaks: two people rotate in one minute, and both are told that it failed half-way."""
    stores, uids = [here.store() for _ in range(3)], [bytes([n]) * 16 for n in range(20)]
    made = {uid: (await stores[0].make(uid)).dek for uid in uids}

    async def rotate(store: KeyStore) -> int:
        await asyncio.to_thread(here.master.add_version)
        return (await store.rotate()).version

    versions = await asyncio.gather(*(rotate(store) for store in stores))
    assert {here.version(uid) for uid in uids} == {max(versions)}
    assert {uid: await dek(here.store(), uid) for uid in uids} == made


async def test_a_rotation_that_broke_off_is_finished_by_the_next(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: some keys stay under the old master key for ever."""
    store, uids = here.store(), [bytes([n]) * 16 for n in range(8)]
    made = {uid: (await store.make(uid)).dek for uid in uids}
    here.master.add_version()
    real, left = DiskKeyFiles.replace, uids[3:]

    def breaking(self: DiskKeyFiles, uid: bytes, make: object) -> object:
        if uid in left:
            raise Unavailable("the disk is away", code="keys.io")
        return real(self, uid, make)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(DiskKeyFiles, "replace", breaking)
        refused = (await store.rotate()).refused
        assert [(type(error), error.code) for error in refused] == [(Unavailable, "keys.io")] * 5
    assert {here.version(uid) for uid in uids} == {1, 2}
    here.master.add_version()
    assert (await store.rotate())[:2] == (3, 8)
    assert {uid: await dek(here.store(), uid) for uid in uids} == made


@pytest.mark.parametrize("room", [0, 1])
async def test_a_rotation_that_has_room_for_one_file_rotates_all_and_else_none(
    here: Here, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """Breaks: on a full disk eight keys are tried at once and most are left, or one is lost."""
    store, uids = here.store(), [bytes([n]) * 16 for n in range(3 * WRITERS)]
    made = {uid: (await store.make(uid)).dek for uid in uids}
    here.master.add_version()
    real, rooms = DiskKeyFiles.replace, threading.Semaphore(room)

    def crowded(self: DiskKeyFiles, uid: bytes, make: object) -> object:
        if not rooms.acquire(blocking=False):
            raise NoSpace("no room", code="keys.space")
        try:
            time.sleep(0.002)
            return real(self, uid, make)  # type: ignore[arg-type]
        finally:
            rooms.release()

    monkeypatch.setattr(DiskKeyFiles, "replace", crowded)
    done = await store.rotate()
    assert (done.rewrapped, len(done.refused)) == ((len(uids), 0) if room else (0, len(uids)))
    assert {here.version(uid) for uid in uids} == {2 if room else 1}
    assert {uid: await dek(here.store(), uid) for uid in uids} == made


async def test_one_damaged_key_file_keeps_no_other_from_being_rotated(here: Here) -> None:
    """Breaks: a flipped bit in one of a thousand files, and no key can be rotated any more."""
    store, uids = here.store(), [bytes([n]) * 16 for n in range(6)]
    for uid in uids:
        await store.make(uid)
    path = here.files.root / uids[2].hex()[:2] / f"{uids[2].hex()}.key"
    raw = bytearray(path.read_bytes())
    raw[1000] ^= 1
    path.write_bytes(raw)
    here.master.add_version()
    assert [(type(error), error.code) for error in (await store.rotate()).refused] == [(Denied, "keys.file")]
    assert sorted(here.version(uid) for uid in uids) == [1, 2, 2, 2, 2, 2]


async def test_a_key_that_is_made_while_keys_are_rotated_is_under_the_new_one(here: Here) -> None:
    """Breaks: a session that started during a rotation stays under the master key that was to go."""

    class Rotating:
        """A rotation begins and ends between a maker's first look and its file."""

        def __init__(self) -> None:
            self.looks = 0

        def keks(self) -> Mapping[int, bytes]:
            return here.master.keks()

        def newest(self) -> tuple[int, bytes]:
            found = here.master.newest()
            self.looks += 1
            if self.looks == 1:
                here.master.add_version()
            return found

    keys = await KeyStore(here.files, Rotating()).make(UID)
    assert here.version() == 2
    assert await dek(here.store()) == keys.dek


async def test_an_erased_key_is_never_made_again(here: Here) -> None:
    """Breaks: a late writer brings a shredded session's keys back."""
    store = here.store()
    keys = await store.make(UID)
    outcome = await store.erase(UID)
    assert await store.erase(UID) == outcome
    assert here.raw() == b""
    assert await dek(store, key_id=keys.dek_id) is None
    here.master.add_version()
    assert (await store.rotate())[1] == 0
    for one in (store, here.store()):
        with pytest.raises(RefusedByState) as error:
            await one.make(UID)
        assert error.value.code == "keys.shredded"


async def test_destroying_while_a_key_is_made_or_rotated_leaves_none(here: Here) -> None:
    """Breaks: a start or a rotation that raced a destruction brings the key back."""
    for number in range(8):
        uid = bytes([number]) * 16
        here.master.add_version()
        stores = [here.store() for _ in range(3)]
        told = await asyncio.gather(
            stores[0].make(uid), stores[1].rotate(), stores[2].erase(uid), return_exceptions=True
        )
        assert not isinstance(told[0], BaseException) or isinstance(told[0], RefusedByState)
        assert not isinstance(told[1], BaseException)
        assert here.raw(uid) == b""


async def test_a_master_key_that_was_restored_opens_at_once(here: Here) -> None:
    """Breaks: a worker that saw a wrong master key needs a restart after the right one came back."""
    keys = await here.store().make(UID)
    file = here.folder / "master-00000001.json"
    good = file.read_bytes()
    file.write_text('{"version": 1, "source": "file", "key": "' + "00" * 32 + '"}')
    worker = here.store()
    with pytest.raises(Denied):
        await dek(worker)
    file.write_bytes(good)
    assert await dek(worker) == keys.dek
