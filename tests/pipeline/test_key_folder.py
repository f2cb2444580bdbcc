"""keys/ and the log belong together: at the service level, against a real server."""

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.config.load import load_settings
from infra.jetstream import connect
from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.errors import Denied, LucidError, Unavailable
from streams.control.client import call
from streams.keys.folder import keys_noted
from streams.roles.drivers import Installation
from streams.roles.services import run_conductor, run_worker
from tests.support.machine.waiting import PATIENCE_S
from tests.support.pipeline.conducted import World, connected, running


def content(keys: Path) -> dict[str, bytes]:
    """Every file of a folder, by name."""
    files = (path for path in keys.rglob("*") if path.is_file())
    return {path.relative_to(keys).as_posix(): path.read_bytes() for path in files}


async def opened(world: World, **settings: Any) -> None:
    here = Installation(replace(world.settings, data=world.data.path, **settings))
    await here.logged_keys(world.jet).open()


def taken_away(keys: Path) -> None:
    shutil.rmtree(keys)


def emptied(keys: Path) -> None:
    for path in keys.iterdir():
        path.unlink()


def foreign(keys: Path) -> None:
    (keys / "installation").write_bytes(b"f" * 16)


def without_master(keys: Path) -> None:
    (keys / "master-00000001.json").unlink()


def without_signer(keys: Path) -> None:
    (keys / "signer.json").unlink()


@pytest.mark.parametrize("broken", [taken_away, emptied, foreign, without_master, without_signer])
@pytest.mark.parametrize("role", [run_conductor, run_worker])
async def test_no_role_starts_or_makes_a_key_beside_a_log_whose_keys_are_not_here(
    server: NatsServer, tmp_path: Path, broken: Callable[[Path], None], role: Any
) -> None:
    """Breaks: a disk that is not mounted gets new keys, and what they seal is lost when it returns."""
    async with connected(server, tmp_path) as world:
        await opened(world)
        keys = world.data.path / "keys"
        broken(keys)
        left = content(keys)
        with pytest.raises(Denied, match=r"keys\.(missing|foreign|older)") as refused:
            await role(world.here, world.jet, asyncio.Event())
        assert str(keys) in refused.value.message
        assert content(keys) == left, "nothing was made"


async def test_the_folder_that_returns_is_taken_up_again(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: a refusal is for good."""
    async with connected(server, tmp_path) as world:
        await opened(world)
        keys = world.data.path / "keys"
        kept = content(keys)
        keys.rename(tmp_path / "elsewhere")
        with pytest.raises(Denied, match=r"keys\.missing"):
            await opened(world)
        assert not keys.exists(), "not even the folder was made: it would be in the way of what returns"
        (tmp_path / "elsewhere").rename(keys)
        await opened(world)
        assert content(keys) == kept


async def test_keys_whose_log_is_gone_begin_no_other(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: an empty NATS takes up an old installation's keys, and its names and counters a second time."""
    async with connected(server, tmp_path) as world:
        await opened(world)
        await world.jet.purge(subjects.LIFECYCLE, subjects.INSTALLATION)
        with pytest.raises(Denied, match=r"keys\.log_missing"):
            await opened(world)
        assert await keys_noted(world.jet) == (None, 0)


async def test_keys_from_before_a_rotation_are_refused(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: an old backup serves, and a second version 2 wraps what the first one should."""
    async with connected(server, tmp_path) as world:
        keys = world.data.path / "keys"
        async with running(run_conductor, world):
            await world.answered()
            shutil.copytree(keys, tmp_path / "before")
            await call(world.jet, "rotate", {})
            shutil.copytree(keys, tmp_path / "between")
            await call(world.jet, "rotate_signer", {})
        for older, lacking in (("before", "master key version 2"), ("between", "signer")):
            shutil.rmtree(keys)
            shutil.copytree(tmp_path / older, keys)
            with pytest.raises(Denied, match=f"lacks {lacking}") as refused:
                await opened(world)
            assert "made after" in refused.value.hint


async def test_keys_from_before_a_session_began_are_refused(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: last week's keys/ serves, and nobody hears that this week's recordings cannot be opened."""
    async with connected(server, tmp_path) as world:
        keys = world.data.path / "keys"
        async with running(run_conductor, world):
            await world.answered()
            await world.start("desk-1")
            shutil.copytree(keys, tmp_path / "before")
            await world.start("desk-2")
            await world.ask("destroy", "desk-2")
        await opened(world)
        newer = keys.rename(tmp_path / "newer")
        shutil.copytree(tmp_path / "before", keys)
        with pytest.raises(Denied, match="lacks the key of session desk-2") as refused:
            await opened(world)
        assert refused.value.code == "keys.older"
        (keys / "newest").touch()  # as `restore --newest` leaves it
        for _ in range(2):
            await opened(world)
        shutil.rmtree(keys)
        newer.rename(keys)
        await opened(world)


async def test_a_folder_that_goes_while_services_run_gets_no_other_keys(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: after an unmount the next START, seal or rotation makes keys of its own."""
    async with connected(server, tmp_path) as world, running(run_conductor, world):
        await world.answered()
        keys = world.data.path / "keys"
        keys.rename(tmp_path / "elsewhere")
        for name in ("rotate", "rotate_signer", "signers"):
            with pytest.raises(LucidError, match=r"keys\.missing"):
                await call(world.jet, name, {})
        for make in (world.here.keyring.newest, lambda: world.here.signers.at(0)):
            with pytest.raises(Unavailable, match=r"keys\.lost"):
                make()
        assert not keys.exists()
        (tmp_path / "elsewhere").rename(keys)
        assert len((await call(world.jet, "signers", {}))["signers"]) == 1


async def test_a_folder_is_checked_before_there_are_streams(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: the first start of all waits for a log that it has not made yet."""
    jet = await connect(server.url, name="first")
    here = Installation(replace(load_settings({}), data=tmp_path / "data"))
    await here.logged_keys(jet).check()
    await jet.close()


class PowerFailsError(Exception):
    """Nothing after this happens."""


@pytest.mark.parametrize(
    "place", ["begin", "keyring.begin", "signers.begin", "append", "appended", "join", "joined"]
)
async def test_a_power_failure_at_the_first_start_is_gone_on_from(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Breaks: a first start that was interrupted is refused for ever, or names two installations."""
    async with connected(server, tmp_path) as world:
        here = world.here
        folder = here.logged_keys(world.jet)
        struck: tuple[Any, str] = {
            "begin": (here.key_folder, "begin"),
            "keyring.begin": (here.keyring, "begin"),
            "signers.begin": (here.signers, "begin"),
            "append": (world.jet, "append"),
            "appended": (world.jet, "append"),
            "join": (here.key_folder, "join"),
            "joined": (here.key_folder, "join"),
        }[place]
        whole = getattr(*struck)

        def fails(*_: Any) -> None:
            if place == "joined":
                whole()
            raise PowerFailsError

        async def fails_later(*arguments: Any) -> None:
            if place == "appended":
                await whole(*arguments)
            raise PowerFailsError

        with monkeypatch.context() as patch:
            patch.setattr(*struck, fails_later if place.startswith("append") else fails)
            with pytest.raises(PowerFailsError):
                await folder.open()
        left = content(world.data.path / "keys")
        await opened(world)
        noted, _ = await keys_noted(world.jet)
        assert noted is not None
        now = content(world.data.path / "keys")
        assert now["installation"] == noted.installation
        assert left.items() <= now.items(), "what was durable stayed"
        assert await world.jet.subject_counts(subjects.LIFECYCLE, subjects.INSTALLATION) == {
            subjects.INSTALLATION: 1
        }


async def test_a_power_failure_after_a_rotation_leaves_it_to_the_next_start(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: the log never hears of a version, and an older keys/ serves later."""
    async with connected(server, tmp_path) as world:
        await opened(world)
        world.here.keyring.add_version()
        world.here.signers.rotate(1)
        await opened(world)
        noted, _ = await keys_noted(world.jet)
        assert noted is not None
        assert ([one.version for one in noted.masters], len(noted.signers)) == ([1, 2], 2)


async def test_a_wrong_encryption_key_is_denied_before_anything_is_served(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: half of the sessions are wrapped under a typing mistake."""
    async with connected(server, tmp_path) as world:
        await opened(world, encryption_key="kilimanjaro horse battery")
        kept = content(world.data.path / "keys")
        for wrong in ("kilimanjaro horse cattery", ""):
            with pytest.raises(Denied, match=r"keys\.(master|kek)"):
                await opened(world, encryption_key=wrong)
        shutil.rmtree(world.data.path / "keys")
        with pytest.raises(Denied, match=r"keys\.missing"):
            await opened(world, encryption_key="kilimanjaro horse battery")
        assert kept
        assert not (world.data.path / "keys").exists()


async def test_roles_that_start_at_once_begin_one_installation(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: worker and conductor make keys of their own at the first start."""
    async with (
        connected(server, tmp_path) as world,
        running(run_worker, world),
        running(run_conductor, world),
    ):
        await world.answered()
        noted, _ = await keys_noted(world.jet)
        assert noted is not None
        assert (len(noted.masters), len(noted.signers)) == (1, 1)
        assert noted.installation == (world.data.path / "keys" / "installation").read_bytes()


async def test_a_role_that_starts_while_another_begins_the_installation_is_not_refused(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: of two services that start at once one ends: the log of its keys is not there, it says."""
    async with connected(server, tmp_path) as world:
        slow = world.here.logged_keys(world.jet)
        held, began = slow._held, []

        def begun_meanwhile() -> Any:
            if not began:
                began.append(True)
                asyncio.run_coroutine_threadsafe(opened(world), loop).result(PATIENCE_S)
            return held()

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(slow, "_held", begun_meanwhile)
        await slow.open()
        noted, _ = await keys_noted(world.jet)
        assert noted is not None
        assert len(noted.masters) == 1


GARBAGE = (b"", b"{}", b'{"type": "KeysNoted"}', b"\xff")


@pytest.mark.parametrize("when", ["before the first start", "later"])
async def test_what_anybody_publishes_under_the_names_of_the_log_refuses_no_start(
    server: NatsServer, tmp_path: Path, when: str
) -> None:
    """Breaks: one message, and nothing ever starts again, nor is any session ever destroyed."""
    async with connected(server, tmp_path) as world:
        if when == "later":
            await opened(world)
        names = (
            subjects.INSTALLATION,
            subjects.KEY_COPIES,
            subjects.KEYS_MADE,
            subjects.erasure(b"e" * 16),
            subjects.ALL_ERASURES.replace("*", "none"),
            subjects.lifecycle("none"),
        )
        for name in names:
            for body in GARBAGE:
                await world.jet.publish(name, body)
        await opened(world)
        world.here.keyring.add_version()
        await opened(world)
        noted, _ = await keys_noted(world.jet)
        assert noted is not None
        assert len(noted.masters) == 2
        async with running(run_conductor, world):
            await world.answered()
            await world.start("demo-01")
            assert (await world.ask("destroy", "demo-01", reason="over"))["state"] == "DESTROYED"


async def test_what_a_crash_left_half_rotated_is_erased_when_any_role_starts(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: where services run without a supervisor, an old wrap of a key stays on the disk for good."""
    async with connected(server, tmp_path) as world:
        await opened(world)
        uid = b"u" * 16
        world.here.key_files.make(uid, b"k" * 4096)
        left = world.data.path / "keys" / "sessions" / uid.hex()[:2] / f".{uid.hex()}.00000000"
        left.write_bytes(b"old" * 1024)
        async with running(run_conductor, world):
            await world.answered()
        assert not left.exists()
