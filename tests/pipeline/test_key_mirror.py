"""A second keys/ on another disk: losing either folder loses nothing, and erased means erased in both."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from infra.blobs.disk import DiskBlobs
from infra.keys.folder import KeyFolder
from infra.keys.session_keys import DiskKeyFiles
from infra.nats_server.server import NatsServer
from schemas.errors import Denied, LucidError, Misuse, Unavailable
from schemas.format import dsse
from schemas.format.trust import Tombstone
from streams.control.client import call
from streams.keys.copies import make_copy, restore
from streams.keys.mirror import end, fill
from streams.retention.shredding import tombstone_name
from streams.roles.drivers import Installation
from streams.roles.services import run_conductor, run_worker
from tests.support.pipeline.conducted import World, connected, running
from tests.support.pipeline.mirrored import DESTROYED, KEPT, LATER, Pair, held, small_files


@pytest.fixture
async def pair(server: NatsServer, tmp_path: Path) -> AsyncIterator[Pair]:
    async with connected(server, tmp_path) as world:
        pair = Pair(world, tmp_path)
        await pair.open()
        yield pair


def are_alike(pair: Pair) -> bool:
    return held(pair.first) == held(pair.mirror) and small_files(pair.first) == small_files(pair.mirror)


async def test_whatever_keys_holds_its_mirror_holds_too(pair: Pair) -> None:
    """Breaks: one file is in one folder alone, and with that disk every recording is lost."""
    made = {uid: pair.make(uid) for uid in (KEPT, DESTROYED, LATER)}
    here = pair.here
    here.keyring.add_version()
    here.signers.rotate(1)
    here.signers.revoke(here.signers.held()[0].name, 5)
    await pair.destroy(DESTROYED)
    assert are_alike(pair)
    assert held(pair.mirror) == {**made, DESTROYED: b""}
    assert {"installation", "joined", "mirrored", "root.json", "signer.json"} <= small_files(
        pair.mirror
    ).keys()
    await pair.open()
    assert are_alike(pair)


LOST: dict[str, Callable[[Pair], Any]] = {
    "keys/": lambda pair: pair.first,
    "mirror": lambda pair: pair.mirror,
}


@pytest.mark.parametrize("lost", LOST)
async def test_a_lost_folder_is_filled_from_the_other_and_by_no_start(pair: Pair, lost: str) -> None:
    """Breaks: a disk fails, and with it every key; or a start fills what is only not mounted."""
    made, place = {uid: pair.make(uid) for uid in (KEPT, DESTROYED, LATER)}, LOST[lost](pair)
    made[DESTROYED] = b""
    await pair.destroy(DESTROYED)
    await pair.open()
    before = {**small_files(pair.first), "mirrored": b""}
    shutil.rmtree(place.path)
    for _ in range(2):
        assert await pair.refused() == ("keys.missing" if place is pair.first else "keys.mirror")
        assert not place.path.exists() or not list(place.path.iterdir()), "nothing was made"
        place.path.mkdir(exist_ok=True)
    here = pair.here
    filled = fill(pair.first, pair.mirror, here.key_folder, here.key_files, here.keyring)
    assert (filled.filled, filled.sessions) == (str(place.path), 2)
    assert are_alike(pair)
    assert held(pair.first) == made
    assert {**small_files(pair.first), "mirrored": b""} == before, "the pair alone has a new name"
    assert await pair.refused() == ""
    assert fill(pair.first, pair.mirror, here.key_folder, here.key_files, here.keyring).filled == ""


async def test_the_mirror_serves_in_the_place_of_a_lost_folder(pair: Pair, tmp_path: Path) -> None:
    """Breaks: a disk failed, and the keys on the other cannot be used without it."""
    made = {uid: pair.make(uid) for uid in (KEPT, LATER)}
    shutil.rmtree(pair.first.path)
    alone = pair.at(pair.mirror, None)
    assert await pair.refused(alone) == "keys.mirror_unset", "what was lost might hold keys still"
    assert end(pair.mirror, None).unproven == 2
    await pair.open(pair.at(pair.mirror, None))
    assert held(pair.mirror) == made
    assert {alone.key_files.erase(uid) for uid in made} == {"unproven"}


async def test_a_folder_is_never_used_without_its_mirror(pair: Pair) -> None:
    """Breaks: the setting is forgotten once, and what is erased then stays in the mirror."""
    assert await pair.refused(pair.at(pair.first, None)) == "keys.mirror_unset"
    assert await pair.refused(pair.at(pair.mirror, None)) == "keys.mirror_unset"
    assert await pair.refused(pair.at(pair.mirror, pair.first)) == "", "they are alike"


async def test_a_foreign_mirror_is_refused_and_stays_as_it_was(
    pair: Pair, server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: the wrong disk is mounted, and the keys of two installations are mixed."""
    other = Pair(World(pair.world.jet, pair.world.data, pair.world.settings), tmp_path / "other")
    other.mirror.folder.begin()
    other.mirror.folder.join()
    other.mirror.files.make(LATER, b"theirs" * 600)
    pair.mirror.path.rename(tmp_path / "ours")
    other.mirror.path.rename(pair.mirror.path)
    left = held(pair.mirror), small_files(pair.mirror)
    assert await pair.refused() == "keys.foreign"
    here = pair.here
    for mixing in (
        lambda: fill(pair.first, pair.mirror, here.key_folder, here.key_files, here.keyring),
        lambda: here.key_folder.put_back("installation", b"f" * 16),
    ):
        with pytest.raises(Denied, match=r"keys\.foreign"):
            mixing()
    assert (held(pair.mirror), small_files(pair.mirror)) == left
    inside = pair.at(pair.first, type(pair.first)(pair.first.path / "sessions"))
    with pytest.raises(Misuse, match=r"config\.keys_mirror"):
        await pair.open(inside)


async def test_an_installation_gets_its_mirror_by_command_alone(pair: Pair, tmp_path: Path) -> None:
    """Breaks: a mirror that is set up later holds half of the keys, or one that was given up keeps them."""
    one = Pair(pair.world, tmp_path / "later")
    alone = pair.at(pair.first, None)
    pair.make(KEPT)
    ended = end(pair.first, pair.mirror)
    assert ended.sessions == 1
    assert not list(pair.mirror.path.glob("*")), "nothing is left in what was given up"
    await pair.open(alone)
    made = pair.make(LATER, alone)
    alone.key_folder.release()
    with_mirror = pair.at(pair.first, one.mirror)
    with_both = (with_mirror.key_folder, with_mirror.key_files, with_mirror.keyring)
    assert await pair.refused(with_mirror) == "keys.mirror"
    assert fill(pair.first, one.mirror, *with_both).sessions == 2
    await pair.open(with_mirror)
    assert held(one.mirror)[LATER] == made
    assert held(one.mirror) == held(pair.first)


async def test_an_erasure_in_one_folder_is_one_in_both_and_no_key_returns(pair: Pair, tmp_path: Path) -> None:
    """Breaks: a mirror that comes back from a repair opens what was destroyed meanwhile."""
    made = {uid: pair.make(uid) for uid in (KEPT, DESTROYED, LATER)}
    shutil.copytree(pair.mirror.path, tmp_path / "older")
    await pair.destroy(DESTROYED)
    pair.first.files.erase(LATER)
    shutil.rmtree(pair.mirror.path)
    (tmp_path / "older").rename(pair.mirror.path)
    assert held(pair.mirror)[DESTROYED], "this test can fail"
    await pair.open()
    assert held(pair.first) == held(pair.mirror) == {KEPT: made[KEPT], DESTROYED: b"", LATER: b""}


@pytest.mark.parametrize("lost", LOST)
async def test_while_one_folder_cannot_be_reached_nothing_is_called_erased_and_what_is_made_is_in_both(
    server: NatsServer, tmp_path: Path, lost: str
) -> None:
    """Breaks: one disk is not mounted, and a tombstone says that a key on it is gone."""
    async with connected(server, tmp_path) as world:
        pair = Pair(world, tmp_path)
        mirrored = pair.here.settings
        world.settings = mirrored
        async with running(run_conductor, world):
            await world.answered()
            uid = (await world.start("demo-01")).grant.uid
            assert held(pair.first) == held(pair.mirror)
            place = LOST[lost](pair)
            place.path.rename(tmp_path / "elsewhere")
            place.path.mkdir()
            file = pair.here.key_files.open(uid)
            assert file is not None, "it is read from the other one"
            file.close()
            begun = asyncio.create_task(world.start("demo-02"))
            asked = asyncio.create_task(world.ask("destroy", "demo-01", reason="over"))
            await world.until("demo-01", "CLEANUP")
            await asyncio.sleep(0.5)
            stone = world.data.manifests / tombstone_name(uid)
            assert not stone.exists()
            assert list(place.path.iterdir()) == [], "nothing is made where a disk is to be mounted"
            place.path.rmdir()
            (tmp_path / "elsewhere").rename(place.path)
            await asked
            later = (await begun).grant.uid
            Tombstone.within(dsse.parse(stone.read_bytes(), dsse.TOMBSTONE))
            assert held(pair.first)[uid] == held(pair.mirror)[uid] == b""
            assert held(pair.first)[later] == held(pair.mirror)[later] != b""


@pytest.mark.parametrize("lost", LOST)
async def test_a_recording_is_made_and_sealed_and_opens_after_either_folder_is_lost(
    server: NatsServer, tmp_path: Path, lost: str
) -> None:
    """Breaks: keys that were made in the middle of a recording are in one folder alone."""
    async with connected(server, tmp_path) as world:
        pair = Pair(world, tmp_path)
        world.settings = pair.here.settings
        async with running(run_conductor, world), running(run_worker, world):
            await world.answered()
            host = await world.start("demo-01")
            await host.record(2)
            assert (await call(world.jet, "rotate", {}))["rewrapped"] == 1
            await host.record(2)
            await host.final()
            await world.until("demo-01", "STOPPED")
        place = LOST[lost](pair)
        shutil.rmtree(place.path)
        here = pair.here
        fill(pair.first, pair.mirror, here.key_folder, here.key_files, here.keyring)
        async with running(run_conductor, world), running(run_worker, world):
            await world.answered()
            host = await world.start("demo-02")
            await host.record(1)
            await host.final()
            await world.until("demo-02", "STOPPED")
        assert are_alike(pair)
        assert set(held(pair.first)) >= {host.grant.uid}


async def test_what_the_first_folder_cannot_read_the_mirror_gives(pair: Pair) -> None:
    """Breaks: one bad sector, and a session cannot be opened although its key lies on another disk."""
    made = pair.make(KEPT)
    named = pair.first.path / "sessions" / KEPT.hex()[:2] / f"{KEPT.hex()}.key"
    for broken in (named.unlink, lambda: named.mkdir()):
        broken()
        file = pair.here.key_files.open(KEPT)
        assert file is not None
        assert file.data == made
        assert file.stands()
        file.close()
    elsewhere = pair.first.path / "sessions" / LATER.hex()[:2]
    elsewhere.mkdir()
    named.rename(elsewhere / f"{LATER.hex()}.key")
    with pytest.raises(Unavailable):  # nobody knows that there is none
        pair.here.key_files.open(LATER)


@pytest.mark.parametrize("damaged", LOST)
@pytest.mark.parametrize("place", [0, 44, 4095])
async def test_a_damaged_key_file_is_replaced_by_the_whole_one_of_the_other_disk(
    pair: Pair, damaged: str, place: int
) -> None:
    """Breaks: one flipped bit, and a session is lost though it has a second key; or the damage is copied."""
    made = {uid: pair.make(uid) for uid in (KEPT, LATER)}
    folder = LOST[damaged](pair).path / "sessions" / KEPT.hex()[:2]
    changed = bytearray(made[KEPT])
    changed[place] ^= 1
    (folder / f"{KEPT.hex()}.key").write_bytes(changed)
    await pair.open()
    here = pair.here
    for mended in (1, 0):
        assert fill(pair.first, pair.mirror, here.key_folder, here.key_files, here.keyring).mended == mended
        assert held(pair.first) == held(pair.mirror) == made


async def test_the_trust_root_that_was_taken_away_stays_away(pair: Pair) -> None:
    """Breaks: a root that is kept offline lies on the disk again after each start."""
    (pair.first.path / "root.json").unlink()
    await pair.open()
    assert not (pair.first.path / "root.json").exists()


async def test_two_files_that_differ_are_mended_by_taking_the_damaged_one_away(pair: Pair) -> None:
    """Breaks: a damaged master key takes the place of the whole one."""
    name = "master-00000001.json"
    whole = (pair.first.path / name).read_bytes()
    (pair.mirror.path / name).write_bytes(b"{}")
    assert await pair.refused() == "keys.mirror_differs"
    (pair.mirror.path / name).unlink()
    await pair.open()
    assert (pair.mirror.path / name).read_bytes() == (pair.first.path / name).read_bytes() == whole


async def test_a_first_start_of_two_processes_is_not_taken_for_a_lost_folder(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: conductor and worker begin an installation at once, and one of them refuses for good."""
    async with connected(server, tmp_path) as world:
        pair = Pair(world, tmp_path)
        read, is_first = KeyFolder.installation, True

        def read_slowly(folder: KeyFolder) -> bytes:
            nonlocal is_first
            found = read(folder)
            if is_first:
                is_first = False
                other = pair.here
                for begins in (other.key_folder, other.keyring, other.signers):
                    begins.begin()
                other.key_folder.join()
            return found

        monkeypatch.setattr(KeyFolder, "installation", read_slowly)
        pair.here.key_folder.require_usable()
        assert not is_first
        assert are_alike(pair)


class PowerFailsError(Exception):
    """Nothing after this happens."""


def strike(
    monkeypatch: pytest.MonkeyPatch, target: Any, name: str, form: str, chosen: Callable[..., bool]
) -> None:
    """Let the power fail at the first call that is chosen: before it is applied, or after."""
    whole = getattr(target, name)
    struck = False

    def call(*arguments: Any, **more: Any) -> Any:
        nonlocal struck
        strikes = not struck and chosen(*arguments)
        struck = struck or strikes
        if strikes and form == "failed":
            raise PowerFailsError
        result = whole(*arguments, **more)
        if strikes:
            raise PowerFailsError
        return result

    monkeypatch.setattr(target, name, call)


@pytest.mark.parametrize("form", ["failed", "applied"])
@pytest.mark.parametrize("place", ["sessions", "mirror"])
@pytest.mark.parametrize("effect", ["make", "replace", "erase"])
async def test_a_crash_between_the_two_folders_is_mended_by_the_next_start(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, effect: str, place: str, form: str
) -> None:
    """Breaks: a key is in one folder alone, or erased in one alone, and nobody ever looks again."""
    before = pair.make(KEPT) if effect != "make" else b""
    root = (pair.first if place == "sessions" else pair.mirror).path / "sessions"

    def renewed(old: bytes) -> bytes | None:
        return b"n" * 4096 if old == before else None

    async def done() -> None:
        if effect == "make":
            pair.make(KEPT)
        elif effect == "erase":
            await pair.destroy(KEPT)
        else:
            pair.here.key_files.replace(KEPT, renewed)

    with monkeypatch.context() as patched:
        strike(patched, DiskKeyFiles, effect, form, lambda files, *_: files.root == root)
        with pytest.raises(PowerFailsError):
            await done()
    await pair.open()
    one, two = held(pair.first), held(pair.mirror)
    if effect == "replace":
        assert one.keys() == two.keys() == {KEPT}
        assert {one[KEPT], two[KEPT]} <= {before, b"n" * 4096}
        pair.here.key_files.replace(KEPT, renewed)
        assert held(pair.first) == held(pair.mirror) == {KEPT: b"n" * 4096}
    else:
        assert one == two
    if effect == "erase":
        assert one == {KEPT: b""}
    if effect == "make":
        assert pair.make(KEPT) == held(pair.first)[KEPT] == held(pair.mirror)[KEPT]


SMALL = ["master-00000002.json", "signer-00000002.json"]


@pytest.mark.parametrize("form", ["failed", "applied"])
@pytest.mark.parametrize("place", ["first", "mirror"])
@pytest.mark.parametrize("name", SMALL)
async def test_a_new_master_key_or_signer_counts_only_when_both_have_it(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, name: str, place: str, form: str
) -> None:
    """Breaks: sessions are wrapped under a master key that is lost with one disk."""
    root = (pair.first if place == "first" else pair.mirror).path
    here = pair.here
    add: Callable[[], object] = here.keyring.add_version
    if name.startswith("signer"):
        add = partial(here.signers.rotate, 1)
    with monkeypatch.context() as patched:
        strike(patched, DiskBlobs, "put", form, lambda blobs, put, *_: (blobs.root, put) == (root, name))
        with pytest.raises(PowerFailsError):
            add()
        assert name not in small_files(pair.first) or name in small_files(pair.mirror)
        assert here.keyring.newest()[0] in pair.at(pair.mirror, None).keyring.keks()
    await pair.open()
    assert are_alike(pair)


FILLED = [
    "begin_arriving 0",
    "note_mirrored 0",
    "put_back 0",
    "put_back 2",
    "key 0",
    "key 1",
    "note_mirrored 1",
]
FILLED += ["join 0", "note_erased 0", "end_arriving 0"]


def strike_nth(monkeypatch: pytest.MonkeyPatch, pair: Pair, wanted: str, form: str) -> None:
    name, number = wanted.split()
    targets: dict[str, tuple[Any, str]] = {
        "begin_arriving": (pair.mirror, "begin_arriving"),
        "end_arriving": (pair.mirror, "end_arriving"),
        "vacate": (pair.mirror, "vacate"),
        "note_mirrored": (type(pair.first.folder), "note_mirrored"),
        "forget_mirror": (type(pair.first.folder), "forget_mirror"),
        "put_back": (pair.mirror.folder, "put_back"),
        "join": (pair.mirror.folder, "join"),
        "note_erased": (pair.mirror.folder, "note_erased"),
        "key": (pair.mirror.files, "put_back"),
        "erase": (pair.mirror.files, "erase"),
        "mark_unproven": (pair.first.files, "mark_unproven"),
    }
    count = iter(range(1000))
    target, attribute = targets[name]
    strike(monkeypatch, target, attribute, form, lambda *_: next(count) == int(number))


@pytest.mark.parametrize("form", ["failed", "applied"])
@pytest.mark.parametrize("effect", FILLED)
async def test_filling_that_a_power_failure_interrupts_is_completed_by_the_same_call(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, effect: str, form: str
) -> None:
    """Breaks: half a mirror counts as a whole one, or keys are erased in one folder and stay in the other."""
    made = {uid: pair.make(uid) for uid in (KEPT, DESTROYED, LATER)}
    await pair.destroy(DESTROYED)
    made[DESTROYED] = b""
    await pair.open()
    shutil.rmtree(pair.mirror.path)
    here = pair.here
    monkeypatch.setattr("streams.keys.move.WRITERS", 1)
    with monkeypatch.context() as patched:
        strike_nth(patched, pair, effect, form)
        with pytest.raises(PowerFailsError):
            fill(pair.first, pair.mirror, here.key_folder, here.key_files, here.keyring)
    codes = {await pair.refused(), await pair.refused(pair.at(pair.first, None))}
    assert codes <= {"keys.mirror", "keys.moving", "keys.mirror_unset", ""}
    assert held(pair.first) == made
    fill(pair.first, pair.mirror, here.key_folder, here.key_files, here.keyring)
    assert await pair.refused() == ""
    assert are_alike(pair)


ENDED = [
    "begin_arriving 0",
    "erase 0",
    "erase 1",
    "mark_unproven 0",
    "vacate 0",
    "forget_mirror 0",
    "end_arriving 0",
]


@pytest.mark.parametrize("form", ["failed", "applied"])
@pytest.mark.parametrize("effect", ENDED)
async def test_giving_up_a_mirror_that_a_power_failure_interrupts_erases_no_key_in_keys(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, effect: str, form: str
) -> None:
    """Breaks: half the mirror is overwritten, and a start takes that for erasures: the keys are lost."""
    made = {uid: pair.make(uid) for uid in (KEPT, LATER)}
    monkeypatch.setattr("streams.keys.move.WRITERS", 1)
    monkeypatch.setattr("infra.keys.session_keys.is_marked", lambda file: False)  # as on a disk of flash
    with monkeypatch.context() as patched:
        strike_nth(patched, pair, effect, form)
        with pytest.raises(PowerFailsError):
            end(pair.first, pair.mirror)
    codes = {await pair.refused(), await pair.refused(pair.at(pair.first, None))}
    assert codes <= {"keys.moving", "keys.mirror_unset", "keys.mirror", ""}
    assert held(pair.first) == made
    end(pair.first, pair.mirror)
    assert held(pair.first) == made
    assert await pair.refused(pair.at(pair.first, None)) == ""


async def test_a_restore_writes_into_both_folders(pair: Pair, tmp_path: Path) -> None:
    """Breaks: a copy that is put back leaves the mirror behind, and the next start refuses both."""
    made = pair.make(KEPT)
    here, phrase, copy = pair.here, "kilimanjaro horse battery", tmp_path / "copy"
    with copy.open("wb") as file:
        await make_copy(
            pair.world.jet, here.key_folder, here.key_files, file, phrase, label="one", until_us=1
        )
    for lost in ((pair.first, pair.mirror), (pair.first,)):
        for place in lost:
            shutil.rmtree(place.path)
        restore(here.key_folder, here.key_files, here.keyring, copy, phrase)
        assert await pair.refused() == ""
        assert held(pair.first) == held(pair.mirror) == {KEPT: made}
    shutil.rmtree(pair.mirror.path)
    with pytest.raises(LucidError, match=r"keys\.mirror"):
        restore(here.key_folder, here.key_files, here.keyring, copy, phrase)
    assert isinstance(here, Installation)
