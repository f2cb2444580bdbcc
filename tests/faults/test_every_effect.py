"""Every side effect of recording, stages, seal and destruction, struck twice: failed, and failed but applied.

One table a role. A calm session beside the struck ones counts what the role does, so that an effect which has
no rows here fails the test. Each struck session must be sealed to the root that its fragments always have.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from infra.blobs.disk import DiskBlobs
from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.errors import Unavailable
from schemas.events.commands import Cleanup, Start
from schemas.format.digest import h
from schemas.format.file_names import tombstone_name
from streams.event_store.host_log import HostLog
from streams.event_store.recordings import Recordings
from streams.event_store.session_log import SessionLog
from streams.keys import keystore
from streams.retention import shredding
from streams.roles.services import run_conductor, run_worker
from tests.support.pipeline.conducted import World, connected, running
from tests.support.pipeline.effects import (
    PATIENCE_S,
    SEAL_EFFECTS,
    WORKER_EFFECTS,
    begin,
    by_uid,
    each,
    prepare,
    sealed,
    send,
    table,
)
from tests.support.pipeline.faulty import (
    CALM,
    Faults,
    FaultyJet,
    struck_conductor,
    struck_worker,
)
from tests.support.pipeline.prepared import Prepared, key_of

CLIENT_EFFECTS = {"append hosts": 1, "append lifecycle": 2}
"""The host's counter, Created and START; who asked asks again with the same cause."""
DESTROY_EFFECTS = {
    "append erasures": 1,
    "erase key": 1,
    "purge RECORDINGS": 2,
    "purge CHUNKS": 2,
    "purge DEAD": 2,
    "remove chunks": 2,
    "put manifests": 1,
    "read manifests": 1,
    "append lifecycle": 2,
}
"""The order; the key; every place twice, for jobs that were under way; tombstone; Shredded, DESTROYED."""


async def test_every_effect_of_recording_and_stages_may_fail(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: one lost ack, full disk or crash at the wrong moment costs a chunk, or makes two of it."""
    struck = table(WORKER_EFFECTS, False, True)
    sessions = prepare([CALM, *struck])
    faults = Faults(struck, by_uid(sessions))
    async with connected(server, tmp_path) as world, running(run_conductor, world):
        await each(begin, world, sessions)
        async with struck_worker(world.jet, world.data, faults):
            await each(send, world, sessions)
            await faults.all_struck(PATIENCE_S)
            survivors = {name: one for name, one in sessions.items() if name == CALM or not struck[name].dies}
            await sealed(world, survivors)
        assert faults.done[CALM] == Counter(WORKER_EFFECTS), "an effect has no rows, or rows without effect"
        async with running(run_worker, world):
            await sealed(world, sessions)


async def test_every_effect_of_start_and_seal_may_fail(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: a session starts with a key that nobody has, or is sealed as two, or never."""
    struck = table(SEAL_EFFECTS, False)
    sessions = prepare([CALM, *struck])
    faults = Faults(struck, by_uid(sessions))
    async with connected(server, tmp_path) as world, running(run_worker, world):
        log = SessionLog(world.jet)
        async with struck_conductor(world.jet, world.data, faults) as directory:
            for prepared in sessions.values():
                # One after the other, so that the key that is made is the one that its fragments wait for.
                with patch.object(keystore, "new_key", return_value=prepared.keys.dek):
                    await log.execute(prepared.create())
                    asked = Start(session=prepared.session, at_us=2, who="host-1", cause="start")
                    await log.execute(asked)
                    started = await directory.until(prepared.session, lambda one: bool(one.dek_id))
                assert started.intake == prepared.keys.intake_public
            await each(send, world, sessions)
            await sealed(world, sessions)
        await faults.all_struck(PATIENCE_S)
    assert faults.done[CALM] == Counter(SEAL_EFFECTS), "an effect has no rows, or rows without effect"


async def test_every_effect_of_a_command_may_fail(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: a host whose request got no answer can never have its session."""
    struck = table(CLIENT_EFFECTS, False)
    sessions = prepare([CALM, *struck])
    faults = Faults(struck, by_uid(sessions))
    async with (
        connected(server, tmp_path) as world,
        running(run_conductor, world),
        running(run_worker, world),
    ):
        jet: Any = FaultyJet(world.jet, faults)
        log, hosts = SessionLog(jet), HostLog(jet)
        for prepared in sessions.values():
            await asyncio.to_thread(prepared.make_key, world.data.keys)
            create = prepared.create()
            start = Start(session=prepared.session, at_us=2, who="host-1", cause="start")
            await asked_again(partial(hosts.admit, create))
            await asked_again(partial(log.execute, create))
            await asked_again(partial(log.execute, start))
        await each(send, world, sessions)
        await sealed(world, sessions)
    await faults.all_struck(PATIENCE_S)
    assert faults.done[CALM] == Counter(CLIENT_EFFECTS), "an effect has no rows, or rows without effect"


async def asked_again(ask: Callable[[], Awaitable[object]]) -> None:
    """A client that got no answer asks the same once more."""
    try:
        await ask()
    except Unavailable:
        await ask()


async def test_every_effect_of_a_destruction_may_fail(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: something of a destroyed session stays, or its log says that it does."""
    struck = table(DESTROY_EFFECTS, False)
    sessions = prepare([CALM, *struck])
    faults = Faults(struck, by_uid(sessions))
    async with connected(server, tmp_path) as world:
        async with running(run_conductor, world), running(run_worker, world):
            await each(begin, world, sessions)
            await each(send, world, sessions)
            await sealed(world, sessions)
        log = SessionLog(world.jet)
        for name in sessions:
            await log.execute(Cleanup(session=name, at_us=7, who="ann", cause="destroy", reason="over"))
        with patch.object(shredding, "PAUSE_S", 0.2):
            async with (
                struck_conductor(world.jet, world.data, faults) as directory,
                asyncio.timeout(PATIENCE_S),
            ):
                for name in sessions:
                    await directory.until(name, lambda one: one.state == "DESTROYED" and bool(one.shredded))
        await faults.all_struck(PATIENCE_S)
        for prepared in sessions.values():
            await check_destroyed(world, prepared)
    assert faults.done[CALM] == Counter(DESTROY_EFFECTS), "an effect has no rows, or rows without effect"


async def check_destroyed(world: World, prepared: Prepared) -> None:
    uid = prepared.uid.hex()
    assert DiskBlobs(world.data.chunks).list(f"{uid}/") == [], prepared.session
    for stream, subject in (
        ((await Recordings.open(world.jet)).stream_of(prepared.session), prepared.subject),
        (subjects.CHUNKS, subjects.chunk("*", prepared.session)),
    ):
        assert [m async for m in world.jet.read_all(stream, subject)] == [], prepared.session
    assert key_of(world.data.keys, prepared.uid) == b"", prepared.session
    session = await SessionLog(world.jet).load(prepared.session)
    raw = DiskBlobs(world.data.manifests).read(tombstone_name(prepared.uid))
    assert raw is not None
    assert session.shredded is not None
    assert session.shredded.tombstone == h(raw)
