"""Sessions that the platform opens itself, and personal fields: real server, conductor, keys, log."""

import asyncio
import errno
import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from handlers.crypto.details import seal_details
from infra.keys.host_identity import HostIdentity
from infra.keys.session_keys import DiskKeyFiles
from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.errors import Denied, LucidError, Misuse, NoSpace, RefusedByState, Stale, TooLarge, Unavailable
from schemas.events.commands import Command, Open
from schemas.events.details import Details
from schemas.format.fragment import MAIN, genesis, session_uid
from schemas.subjects import UPLOAD_HOST
from streams.bench.finished import FinishedHost
from streams.control.client import call
from streams.event_store.session_log import SessionLog
from streams.keys.first_key import first_key
from streams.keys.keystore import KeyStore
from streams.roles.services import run_conductor
from tests.support.pipeline.conducted import World, connected, running, system

OWNER, SECRET = "zanzibar.example@clinic", "kilimanjaro-unheard-of"
DETAILS = {"name": "Zanzibar shift", "owner": OWNER, "tags": ["ward-7"]}


async def opened(world: World, session: str = "up-01", **more: Any) -> dict[str, Any]:
    body = {"cause": f"open-{session}", "details": DETAILS, "password": SECRET, **more}
    return await world.ask("open", session, **body)


def key_files(world: World) -> list[tuple[bytes, bool]]:
    """Uid of every key file, and whether it is erased."""
    return list(DiskKeyFiles(world.data.keys / "sessions").states())


async def all_bytes(world: World) -> bytes:
    """Everything in the log."""
    return b"".join([bytes(m.data) async for m in world.jet.read_all(subjects.LIFECYCLE, "lucid.>")])


async def test_personal_fields_are_sealed_in_the_log_and_opened_by_a_query_alone(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: who reads the log, or asks for a session, reads who it is about."""
    async with system(server, tmp_path, worker=False) as world:
        shown = await opened(world, policy={"retention_days": 3}, capture={"frame_rate": 5})
        assert (shown["state"], shown["revision"], shown["upload"]) == ("CREATED", 1, True)
        assert (shown["policy"], shown["capture"]["frame_rate"]) == ({"retention_days": 3}, 5)
        for answer in (shown, await world.ask("show", "up-01"), await call(world.jet, "list", {})):
            assert OWNER not in json.dumps(answer)
        answer = await world.ask("details", "up-01")
        assert answer["details"]["owner"] == OWNER
        assert "password" not in json.dumps(answer)
        written = await all_bytes(world)
        assert not any(word.encode() in written for word in (OWNER, SECRET, "Night"))


async def test_the_key_that_seals_the_details_is_the_key_of_the_session(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: a session has two keys, and destroying it erases one of them."""
    async with system(server, tmp_path, worker=False) as world:
        shown = await opened(world)
        assert key_files(world) == [(bytes.fromhex(shown["uid"]), False)]
        started = await world.ask("start", "up-01")
        created = (await SessionLog(world.jet).load("up-01")).created
        assert created is not None
        assert created.dek_id is not None
        assert started["dek_id"] == created.dek_id.hex()
        await world.ask("destroy", "up-01")
        assert key_files(world) == [(bytes.fromhex(shown["uid"]), True)]
        with pytest.raises(RefusedByState, match=r"keys\.shredded"):
            await world.ask("details", "up-01")


async def test_a_repeated_open_is_one_session_and_another_content_is_refused(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: a client that asks again after a lost answer has two sessions, or a changed one."""
    async with system(server, tmp_path, worker=False) as world:
        first = await opened(world)
        again = await asyncio.gather(*(opened(world) for _ in range(5)))
        assert all(answer == first for answer in again)
        for changed in (
            {"details": {**DETAILS, "name": "Day"}},
            {"password": "x"},
            {"settings": {"codec": 0}},
        ):
            with pytest.raises(RefusedByState, match=r"idempotency\.reused"):
                await opened(world, **changed)
        with pytest.raises(RefusedByState, match=r"session\.exists"):
            await opened(world, cause="another")
        assert len(key_files(world)) == 1
        await world.ask("destroy", "up-01")
        assert (await opened(world))["state"] == "DESTROYED"


async def test_sessions_that_are_opened_at_once_have_each_a_number(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: two uploads get one uid, and with it one key."""
    async with system(server, tmp_path, worker=False) as world:
        shown = await asyncio.gather(*(opened(world, f"up-{number}") for number in range(20)))
        assert len({one["uid"] for one in shown}) == 20
        assert len(key_files(world)) == 20


class Broken:
    """A log in which one step fails: before it is done, or after."""

    def __init__(self, after: bool) -> None:
        self.after, self.left, self.real = after, 1, SessionLog.execute

    async def execute(self, log: SessionLog, command: Command, *more: Any) -> Any:
        if isinstance(command, Open) and self.left:
            self.left = 0
            if self.after:
                await self.real(log, command, *more)
            raise Unavailable("struck", code="nats.timeout")
        return await self.real(log, command, *more)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("again", ["the same", "another", "restart"])
async def test_no_key_stays_without_its_session_and_no_session_without_its_key(
    server: NatsServer, tmp_path: Path, after: bool, again: str
) -> None:
    """Breaks: a crash between key and log leaves a key that nobody ever erases, or details nobody opens."""
    broken = Broken(after)

    async def execute(log: SessionLog, command: Command, *more: Any) -> Any:
        return await broken.execute(log, command, *more)

    async with connected(server, tmp_path) as world:
        async with running(run_conductor, world):
            await world.answered()
            with patch.object(SessionLog, "execute", execute), pytest.raises(Unavailable):
                await opened(world)
            assert len(key_files(world)) == 1
            if again == "the same":
                assert (await opened(world))["revision"] == 1
            elif again == "another":
                await opened(world, "up-02")
        async with running(run_conductor, world):
            await world.answered()
            states = dict(key_files(world))
            with HostIdentity(world.data.path / "hosts", UPLOAD_HOST) as me:
                assert me.pending == ()
                first = session_uid(me.public, 1)
            assert states[first] is not after
            if after or again == "the same":
                assert (await world.ask("details", "up-01"))["details"]["owner"] == OWNER
            if not after:
                erased = [m async for m in world.jet.read_all(subjects.LIFECYCLE, subjects.ALL_ERASURES)]
                assert len(erased) == 1
            shown = await opened(world)
            assert dict(key_files(world))[bytes.fromhex(shown["uid"])] is False
            assert (await world.ask("start", "up-01"))["state"] == "ACTIVE"


class Refused:
    """A log that takes no Created of one name: before it is done, or after."""

    def __init__(self, name: str, after: bool, error: LucidError) -> None:
        self.name, self.after, self.error, self.real = name, after, error, SessionLog.execute

    async def execute(self, log: SessionLog, command: Command, *more: Any) -> Any:
        if not isinstance(command, Open) or command.session != self.name:
            return await self.real(log, command, *more)
        if self.after:
            await self.real(log, command, *more)
        raise self.error


OUTAGE, REFUSAL = Unavailable("struck", code="nats.timeout"), RefusedByState("no", code="session.exists")


@pytest.mark.parametrize(("after", "error"), [(False, OUTAGE), (True, OUTAGE), (False, REFUSAL)])
async def test_one_that_fails_among_many_leaves_no_hole_in_the_line(
    server: NatsServer, tmp_path: Path, after: bool, error: LucidError
) -> None:
    """Breaks: a session is not created, the next one names it, and evidence misses a session for ever."""
    names = [f"up-{number}" for number in range(8)]
    refused = Refused("up-3", after, error)

    async def execute(log: SessionLog, command: Command, *more: Any) -> Any:
        return await refused.execute(log, command, *more)

    async with system(server, tmp_path, worker=False) as world:
        with patch.object(SessionLog, "execute", execute):
            first = await asyncio.gather(*(opened(world, name) for name in names), return_exceptions=True)
        assert isinstance(first[3], type(error))
        assert {type(one) for one in first} == {dict, type(error)}
        if error is REFUSAL:
            assert [type(one) for one in first].count(dict) == 7
        for name in names:
            await opened(world, name)
        await opened(world, "last")
        await the_line_is_whole(world, [*names, "last"])
        states = dict(key_files(world))
        assert sum(not erased for erased in states.values()) == 9


async def the_line_is_whole(world: World, names: list[str]) -> None:
    """Each session of the upload host names the genesis of the one before it."""
    log, keys = SessionLog(world.jet), KeyStore(world.here.key_files, world.here.keyring)
    line = bytes(32)
    found = [await log.load(name) for name in names]
    for session in sorted(found, key=lambda one: one.created.counter if one.created else 0):
        created = session.created
        assert created is not None
        assert created.prev_genesis == line, session.id
        held = await keys.make(session.uid)
        line = genesis(session.uid, MAIN, created.host_key, created.counter, line, held.intake_public)


async def test_a_request_that_cannot_be_sealed_stops_no_other(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: fields of one request that are too long refuse everybody who asks at this moment."""

    def sealed(dek: bytes, uid: bytes, revision: int, details: Details) -> bytes:
        if details.name == "long":
            raise TooLarge("too long", code="details.size")
        return seal_details(dek, uid, revision, details)

    async with system(server, tmp_path, worker=False) as world:
        asked = [opened(world, f"up-{number}") for number in range(4)]
        asked.insert(2, opened(world, "long", details={**DETAILS, "name": "long"}))
        with patch("streams.control.opening.seal_details", sealed):
            found = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(one).__name__ for one in found] == ["dict", "dict", "TooLarge", "dict", "dict"]
        await opened(world, "last")
        await the_line_is_whole(world, ["up-0", "up-1", "up-2", "up-3", "last"])
        assert [erased for _, erased in key_files(world)].count(True) == 1


async def test_a_damaged_log_of_one_upload_stops_no_other(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: whoever reaches the log writes one bad event, and nobody opens a session any more."""
    async with connected(server, tmp_path) as world:
        async with running(run_conductor, world):
            await world.answered()
            await opened(world, "up-01")
        await world.jet.publish(subjects.lifecycle("up-01"), b"{}")
        async with running(run_conductor, world):
            await world.answered()
            assert (await opened(world, "up-02"))["state"] == "CREATED"
        assert [erased for _, erased in key_files(world)] == [False, False]


async def test_a_destroyed_upload_stays_in_the_line_after_a_restart(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: who destroys a session and ends the process hides that there was one."""
    async with connected(server, tmp_path) as world:
        async with running(run_conductor, world):
            await world.answered()
            await opened(world, "up-01")
            await world.ask("start", "up-01")
            await world.ask("destroy", "up-01")
        async with running(run_conductor, world):
            await world.answered()
            await opened(world, "up-02")
        log = SessionLog(world.jet)
        first, second = await log.load("up-01"), (await log.load("up-02")).created
        assert first.created is not None
        assert second is not None
        line = genesis(first.uid, MAIN, first.created.host_key, 1, bytes(32), first.intake)
        assert second.prev_genesis == line


async def test_a_full_disk_below_the_counter_is_told_and_passes(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: everybody who asks reads of a bug, and nobody frees the disk."""
    full = OSError(errno.ENOSPC, "No space left on device")
    async with system(server, tmp_path, worker=False) as world:
        with patch("infra.keys.host_identity.write_private", side_effect=full):
            for name in ("up-01", "up-02"):
                with pytest.raises(NoSpace, match=r"keys\.space"):
                    await opened(world, name)
        assert (await opened(world, "up-01"))["state"] == "CREATED"


async def test_two_uploads_name_one_another_in_their_line(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: a session of the upload host can be left out, and the next one does not show it."""
    async with system(server, tmp_path, worker=False) as world:
        await opened(world, "up-01")
        await opened(world, "up-02")
        log = SessionLog(world.jet)
        first, second = (await log.load("up-01")).created, (await log.load("up-02")).created
        assert first is not None
        assert second is not None
        assert (first.prev_genesis, first.counter, second.counter) == (bytes(32), 1, 2)
        assert second.prev_genesis != bytes(32)


async def test_details_are_changed_by_the_one_who_read_them_last(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: of two changes at once both seem to be done, and one is lost."""
    async with system(server, tmp_path, worker=False) as world:
        await opened(world)
        both = await asyncio.gather(
            *(
                world.ask("update", "up-01", revision=1, details={**DETAILS, "name": name})
                for name in ("one", "two")
            ),
            return_exceptions=True,
        )
        assert sorted(type(one).__name__ for one in both) == ["Stale", "dict"]
        answer = await world.ask("details", "up-01")
        assert answer["revision"] == 2
        assert answer["details"]["name"] in ("one", "two")
        with pytest.raises(Stale, match=r"session\.revision"):
            await world.ask("update", "up-01", revision=1, details={})


async def test_a_session_of_a_host_takes_details_and_keeps_one_key(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: who describes a session before it starts gives it a key of its own, and the host another."""
    async with system(server, tmp_path, worker=False) as world:
        host = FinishedHost("host-1")
        await call(world.jet, "create", host.create("desk-1", 1).model_dump(mode="json"))
        assert key_files(world) == []
        assert (await world.ask("details", "desk-1"))["details"] == {}
        assert (await world.ask("update", "desk-1", revision=0, details=DETAILS))["revision"] == 1
        await world.ask("start", "desk-1")
        assert len(key_files(world)) == 1
        assert (await world.ask("details", "desk-1"))["details"]["owner"] == OWNER


async def test_no_other_host_has_the_name_of_the_upload_host(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: a stranger records under the name that people trust for what came over HTTP."""
    async with system(server, tmp_path, worker=False) as world:
        stranger = FinishedHost(UPLOAD_HOST)
        with pytest.raises(Denied, match=r"host\.reserved|access\.host"):
            await call(world.jet, "create", stranger.create("desk-1", 1).model_dump(mode="json"))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"capture": {"audio": True}}, "session.unsupported"),
        ({"policy": {"backup": True}}, "session.unsupported"),
        ({"policy": {"archive": True}}, "session.unsupported"),
        ({"settings": {"codecs": 1}}, "session.settings"),
        ({"settings": {"codec": 9}}, "command.form"),
        ({"settings": {"codec": 3, "level": 11, "chunk_bytes": 16 << 20}}, "compression.cost"),
        ({"capture": {"frame_rate": 0}}, "command.form"),
        ({"capture": {"sound": True}}, "command.form"),
        ({"password": "x" * 5000}, "command.form"),
    ],
)
async def test_a_setting_has_an_effect_or_is_refused(
    server: NatsServer, tmp_path: Path, body: dict[str, Any], code: str
) -> None:
    """Breaks: somebody believes that sound is recorded, or a copy made, and nothing is."""
    async with system(server, tmp_path, worker=False) as world:
        with pytest.raises(Misuse) as refused:
            await opened(world, **body)
        assert refused.value.code == code
        assert SECRET not in str(refused.value)
        with pytest.raises(LucidError, match=r"session\.absent"):
            await world.ask("show", "up-01")
        assert key_files(world) == []


async def test_a_key_that_is_lost_is_not_made_anew(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: keys/ comes back from an older copy, and a new key takes the place of the right one."""
    async with system(server, tmp_path, worker=False) as world:
        uid = (await opened(world))["uid"]
        session = await SessionLog(world.jet).load("up-01")
        path = world.data.keys / "sessions" / uid[:2] / f"{uid}.key"
        kept = path.rename(tmp_path / "kept.key")
        keys = KeyStore(world.here.key_files, world.here.keyring)
        with pytest.raises(Unavailable, match=r"keys\.pending"):
            await first_key(keys, nothing, world.jet, session)
        assert not path.exists()
        kept.rename(path)
        assert (await first_key(keys, nothing, world.jet, session)).dek_id == session.key_id
        await world.ask("start", "up-01")


async def nothing() -> None:
    """In place of the check of the whole folder."""
