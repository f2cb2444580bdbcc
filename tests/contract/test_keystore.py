"""Keys of sessions in KEYS, on a real server: made once, rotated, fenced, erased."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from waiting import PATIENCE_S

from handlers.keys import new_key
from infra.jetstream import Jet, connect
from infra.keyring import Keyring
from infra.nats_server import NatsServer
from schemas import subjects
from schemas.errors import Conflict, Denied, RefusedByState, Unavailable
from schemas.key_events import KeyFenced, KeyWrapped, read_key_event
from streams import topology
from streams.keystore import KeyStore

UID = b"u" * 16


@pytest.fixture
def master(tmp_path: Path) -> Keyring:
    ring = Keyring(tmp_path / "keys")
    ring.begin()
    return ring


@pytest.fixture
async def store(jet: Jet, master: Keyring) -> KeyStore:
    await topology.declare(jet, 1 << 30)
    return KeyStore(jet, master)


async def held(jet: Jet, uid: bytes = UID) -> list[type]:
    messages = [m async for m in jet.read_all(subjects.KEYS, subjects.key(uid))]
    return [type(read_key_event(message.data)) for message in messages]


def on_disk(server: NatsServer) -> bytes:
    return b"".join(path.read_bytes() for path in Path(server.data).rglob("*.blk"))


async def test_of_many_conductors_one_makes_the_key(store: KeyStore, jet: Jet, master: Keyring) -> None:
    """Breaks: a host seals to one key and the worker opens with another."""
    stores = [KeyStore(jet, master) for _ in range(10)]
    made = await asyncio.gather(*(one.make(UID) for one in stores))
    assert len({keys.dek for keys in made}) == 1
    assert await held(jet) == [KeyWrapped]


async def test_a_key_whose_ack_was_lost_is_the_key(store: KeyStore, jet: Jet, master: Keyring) -> None:
    """Breaks: after a crash between KEYS and START_COMPLETE the session has two keys."""

    class Losing:
        def __init__(self) -> None:
            self.times = 1

        def __getattr__(self, name: str) -> Any:
            return getattr(jet, name)

        async def append(self, *args: Any, **more: Any) -> int:
            seq = await jet.append(*args, **more)
            if self.times:
                self.times = 0
                raise Unavailable("lost", code="nats.timeout")
            return seq

    losing = KeyStore(Losing(), master)  # type: ignore[arg-type]
    with pytest.raises(Unavailable):
        await losing.make(UID)
    keys = await losing.make(UID)
    found = await store.session_keys(UID, keys.dek_id)
    assert found is not None
    assert found.dek == keys.dek
    assert await held(jet) == [KeyWrapped]


async def test_a_key_that_is_not_there_yet_is_waited_for_and_never_made_by_a_reader(
    store: KeyStore, jet: Jet
) -> None:
    """Breaks: a worker makes a key of its own."""
    with pytest.raises(Unavailable) as error:
        await store.session_keys(UID)
    assert error.value.code == "keys.absent"
    assert await held(jet) == []


async def test_another_key_than_the_log_names_is_denied(store: KeyStore) -> None:
    """Breaks: chunks are sealed under a key that no manifest names."""
    await store.make(UID)
    with pytest.raises(Denied) as error:
        await store.session_keys(UID, b"x" * 16)
    assert error.value.code == "keys.other"


async def test_rotation_keeps_the_key_and_erases_the_old_wrap(
    store: KeyStore, jet: Jet, master: Keyring, server: NatsServer
) -> None:
    """Breaks: a rotation loses keys, or leaves wraps that the old master key opens."""
    keys = await store.make(UID)
    others = [bytes([n]) * 16 for n in range(20)]
    for uid in others:
        await store.make(uid)
    old = await jet.last(subjects.KEYS, subjects.key(UID))
    assert old is not None
    assert old.data in on_disk(server)
    master.add_version()
    assert (await store.rotate())[:2] == (2, 21)
    assert await store.rotate() == (2, 0, 0)
    (master.directory / "master-00000001.json").unlink()
    fresh = KeyStore(jet, master)
    found = await fresh.session_keys(UID, keys.dek_id)
    assert found is not None
    assert found.dek == keys.dek
    wrap = read_key_event(old.data)
    assert isinstance(wrap, KeyWrapped)
    assert await jet.get(subjects.KEYS, old.seq) is None
    assert old.data not in on_disk(server), "the old wrap is still on the disk"


@pytest.mark.parametrize("applied", [False, True], ids=["failed", "failed but applied"])
@pytest.mark.parametrize("call", ["append", "delete"])
async def test_a_rotation_that_broke_off_is_finished_by_the_next(
    store: KeyStore, jet: Jet, master: Keyring, call: str, applied: bool
) -> None:
    """Breaks: two wraps for ever, or none."""
    keys = await store.make(UID)
    master.add_version()

    class Breaking:
        def __getattr__(self, name: str) -> Any:
            real = getattr(jet, name)
            if name != call:
                return real

            async def broken(*args: Any, **more: Any) -> Any:
                if applied:
                    await real(*args, **more)
                raise Unavailable("down", code="nats.timeout")

            return broken

    with pytest.raises(Unavailable):
        await KeyStore(Breaking(), master).rotate()  # type: ignore[arg-type]
    assert (await KeyStore(jet, master).session_keys(UID)) is not None
    await store.rotate()
    assert await held(jet) == [KeyWrapped]
    found = await KeyStore(jet, master).session_keys(UID)
    assert found is not None
    assert found.dek == keys.dek


async def test_after_the_fence_no_key_is_ever_made_again(store: KeyStore, jet: Jet, master: Keyring) -> None:
    """Breaks: a late writer brings a shredded session's keys back."""
    keys = await store.make(UID)
    with pytest.raises(RefusedByState):
        await store.erase(UID)
    await store.fence(UID)
    await store.fence(UID)
    assert await held(jet) == [KeyWrapped, KeyFenced]
    assert await store.erase(UID) == 1
    assert await store.erase(UID) == 0
    assert await held(jet) == [KeyFenced]
    assert await store.session_keys(UID, keys.dek_id) is None
    with pytest.raises(RefusedByState) as error:
        await KeyStore(jet, master).make(UID)
    assert error.value.code == "keys.shredded"
    with pytest.raises(Conflict):
        await jet.append(subjects.key(UID), b"late", 0)


async def test_an_erased_wrap_is_not_on_the_disk(store: KeyStore, jet: Jet, server: NatsServer) -> None:
    """Breaks: crypto-shredding that a file recovery undoes."""
    await store.make(UID)
    message = await jet.last(subjects.KEYS, subjects.key(UID))
    assert message is not None
    await store.fence(UID)
    await store.erase(UID)
    assert message.data not in on_disk(server)
    assert b'"lucid.key.fenced.v1"' in on_disk(server)


async def test_a_session_that_never_had_a_key_can_be_fenced(store: KeyStore, jet: Jet) -> None:
    """Breaks: destroying a session that was never started fails."""
    await store.fence(UID)
    assert await store.erase(UID) == 0
    assert await held(jet) == [KeyFenced]


async def test_fence_and_rotation_at_once_leave_the_fence(store: KeyStore, jet: Jet, master: Keyring) -> None:
    """Breaks: a rotation that raced a destruction brings the key back."""
    for number in range(5):
        uid = bytes([number]) * 16
        await store.make(uid)
        master.add_version()
        await asyncio.gather(store.rotate(), store.fence(uid))
        await store.erase(uid)
        assert await held(jet, uid) == [KeyFenced]


async def test_a_cached_key_is_forgotten_when_it_is_shredded(
    store: KeyStore, jet: Jet, master: Keyring, server: NatsServer
) -> None:
    """Breaks: a worker goes on sealing for a minute after the key was destroyed."""
    other_jet = await connect(server.url, name="other", timeout_s=PATIENCE_S)
    reader = KeyStore(other_jet, master)
    following = asyncio.create_task(reader.run())
    await store.make(UID)
    assert await reader.session_keys(UID) is not None
    await asyncio.sleep(0.2)
    await store.fence(UID)
    await store.erase(UID)
    async with asyncio.timeout(PATIENCE_S):
        while await reader.session_keys(UID) is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await other_jet.close()


async def test_a_key_is_read_from_the_server_once_a_minute(store: KeyStore, jet: Jet) -> None:
    """Breaks: every chunk costs a request and a derivation."""
    calls = 0

    class Counting:
        def keks(self) -> Mapping[int, bytes]:
            nonlocal calls
            calls += 1
            return {1: kek}

        def newest(self) -> tuple[int, bytes]:
            return 1, kek

    kek = new_key()
    counted = KeyStore(jet, Counting())
    await counted.make(UID)
    for _ in range(5):
        await counted.session_keys(UID)
    assert calls == 1
