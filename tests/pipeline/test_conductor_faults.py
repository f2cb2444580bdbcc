"""Every side effect of the conductor, struck twice: it failed, and it failed but was applied.

One conductor brings many sessions on; each session has one effect at which that conductor dies for it. Then a
fresh conductor takes over. A calm session beside them counts the effects, so a new write is struck by itself.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from handlers.lifecycle.session import Session
from infra.blobs.disk import DiskBlobs
from infra.jetstream import Jet
from infra.keys.master import Keyring
from infra.keys.session_keys import DiskKeyFiles
from infra.keys.signers import Signers
from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.errors import Unavailable
from schemas.events.commands import Cleanup, Start
from schemas.format import dsse
from schemas.format.digest import h
from schemas.format.file_names import tombstone_name
from schemas.format.manifest import Manifest
from schemas.ports import Erasure
from schemas.ports.messages import Message
from streams.conductor.conductor import Conductor
from streams.conductor.parts import ConductorParts
from streams.event_store.event_store import EventStore
from streams.event_store.recordings import Recordings
from streams.event_store.session_directory import SessionDirectory
from streams.event_store.session_log import SessionLog, read_event
from streams.evidence.evidence_store import EvidenceStore
from streams.keys.keystore import KeyStore
from streams.roles.services import run_worker
from tests.support.machine.waiting import PATIENCE_S
from tests.support.pipeline.conducted import Host, World, connected, requested, running, system
from tests.support.pipeline.faulty import checked
from tests.support.pipeline.prepared import key_of

CALM = "calm"
START_EFFECTS = ("make key", "publish keysmade", "append lifecycle")
SEAL_EFFECTS = (
    "append lifecycle",  # STOPPING
    "append lifecycle",  # SealStarted
    "put chunks",
    "put manifests",
    "append lifecycle",  # Sealed
    "append lifecycle",  # STOPPED
)
EMPTYING = ("purge RECORDINGS rec", "purge CHUNKS chunk", "purge DEAD dead", "remove chunks")
DESTROY_EFFECTS = (
    "append erasures",
    "erase key",
    *EMPTYING,
    *EMPTYING,
    "put manifests",  # the tombstone
    "append lifecycle",  # Shredded
    "append lifecycle",  # DESTROYED
)


@dataclass
class Faults:
    """Which effect of which session ends this conductor for it. `at`: session → (effect, applied)."""

    at: dict[str, tuple[int, bool]]
    uids: dict[str, str] = field(default_factory=dict)
    done: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    dead: set[str] = field(default_factory=set)
    all_met: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.loop = asyncio.get_running_loop()

    def before(self, name: str, effect: str) -> bool:
        """Whether the effect is to be applied; raises when the conductor is dead, or dies before it."""
        if name in self.dead:
            raise Unavailable(f"{name}: this conductor is dead", code="test.dead")
        number, applied = self.at.get(name, (-1, False))
        self.done[name].append(effect)
        if len(self.done[name]) - 1 != number:
            return False
        self.dead.add(name)
        if self.dead == set(self.at):
            self.loop.call_soon_threadsafe(self.all_met.set)
        if not applied:
            raise Unavailable(f"{name}: {effect} failed", code="test.failed")
        return True

    def session(self, subject_or_name: str) -> str:
        """The session that a subject or a blob's name belongs to."""
        token = subject_or_name.replace("/", ".").split(".")
        known = [self.uids.get(part, part) for part in token]
        return next((part for part in known if part in self.at or part == CALM), "")


class FaultyJet:
    """A connection with faults in everything that writes."""

    def __init__(self, jet: Jet, faults: Faults) -> None:
        self._jet, self._faults = jet, faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._jet, name)

    async def append(self, subject: str, *args: Any, **more: Any) -> int:
        call = partial(self._jet.append, subject, *args, **more)
        return int(await self._struck(subject, "append", call))

    async def publish(self, subject: str, data: bytes, *args: Any, **more: Any) -> Any:
        # what has no subject of its session names its uid
        whose = subject if self._faults.session(subject) else f"{subject}.{json.loads(data)['uid']}"
        return await self._struck(whose, "publish", lambda: self._jet.publish(subject, data, *args, **more))

    async def purge(self, stream: str, subject: str, *args: Any) -> int:
        what = f"purge {stream.split('-')[0]}"  # of whichever shard
        return int(await self._struck(subject, what, partial(self._jet.purge, stream, subject, *args)))

    async def _struck(self, subject: str, effect: str, call: Callable[[], Any]) -> Any:
        name = self._faults.session(subject)
        dies = self._faults.before(name, f"{effect} {subject.split('.')[1]}") if name else False
        result = await call()
        if dies:
            raise Unavailable(f"{name}: {effect} failed, but was applied", code="test.applied")
        return result


class FaultyBlobs(DiskBlobs):
    """Files with faults in everything that writes."""

    faults: Faults

    def put(self, name: str, data: Any) -> Any:
        return self._struck(name, "put", lambda: DiskBlobs.put(self, name, data))

    def remove(self, prefix: str) -> int:
        return int(self._struck(prefix, "remove", lambda: DiskBlobs.remove(self, prefix)))

    def _struck(self, name: str, effect: str, call: Callable[[], Any]) -> Any:
        session = self.faults.session(name)
        dies = self.faults.before(session, f"{effect} {self.root.name}") if session else False
        result = call()
        if dies:
            raise Unavailable(f"{session}: {effect} failed, but was applied", code="test.applied")
        return result


class FaultyKeyFiles(DiskKeyFiles):
    """Key files with faults in making and erasing."""

    faults: Faults

    def make(self, uid: bytes, data: bytes) -> bytes:
        made: bytes = self._struck(uid, "make key", lambda: DiskKeyFiles.make(self, uid, data))
        return made

    def erase(self, uid: bytes, *, was_made: bool = True) -> Erasure:
        outcome: Erasure = self._struck(
            uid, "erase key", lambda: DiskKeyFiles.erase(self, uid, was_made=was_made)
        )
        return outcome

    def _struck(self, uid: bytes, effect: str, call: Callable[[], Any]) -> Any:
        session = self.faults.session(uid.hex())
        dies = self.faults.before(session, effect) if session else False
        result = call()
        if dies:
            raise Unavailable(f"{session}: {effect} failed, but was applied", code="test.applied")
        return result


@asynccontextmanager
async def conductor(world: World, faults: Faults) -> AsyncIterator[SessionDirectory]:
    """A conductor whose effects can be struck."""
    jet: Any = FaultyJet(world.jet, faults)
    keyring, signers = Keyring(world.data.keys), Signers(world.data.keys)
    keyring.begin()
    signers.begin()
    files = FaultyKeyFiles(world.data.keys / "sessions")
    files.faults = faults
    directory, keys = SessionDirectory(world.jet), KeyStore(files, keyring)
    chunks = FaultyBlobs(world.data.chunks, world.data.quarantine)
    manifests = FaultyBlobs(world.data.manifests, world.data.quarantine)
    chunks.faults = manifests.faults = faults
    quarantine = DiskBlobs(world.data.quarantine)
    store = EventStore.over(await Recordings.open(jet), directory)
    parts = ConductorParts(
        *(store, keys, EvidenceStore(chunks, manifests, quarantine), signers),
        require_keys=checked(world.jet, world.data),
    )
    tasks = [asyncio.create_task(service.run()) for service in (directory, Conductor(parts))]
    try:
        await directory.ready()
        yield directory
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def plan(effects: Sequence[str]) -> dict[str, tuple[int, bool]]:
    struck = [(n, applied) for n in range(len(effects)) for applied in (False, True)]
    return {f"s{n}-{'applied' if applied else 'failed'}": (n, applied) for n, applied in struck}


async def finish(world: World, hosts: dict[str, Host]) -> None:
    async with running(run_worker, world):
        for host in hosts.values():
            host.jet = world.jet
            await host.record(1, 100)
            await host.final()
        for name in hosts:
            await world.stored(name, 1)
        async with asyncio.timeout(PATIENCE_S):
            for name in hosts:
                await ended(world.jet, name)


async def ended(jet: Jet, name: str) -> None:
    """Return when the recording has ended."""
    async for item in jet.follow(subjects.CHUNKS, [subjects.chunk(subjects.RECORDED, name)]):
        if isinstance(item, Message) and b".ended." in item.data:
            return


async def settled(directory: SessionDirectory, faults: Faults, state: str, effects: Sequence[str]) -> None:
    """Return when the calm session is done and every other one has met its fault."""
    async with asyncio.timeout(PATIENCE_S):
        await directory.until(CALM, lambda session: session.state == state)
        assert tuple(faults.done[CALM]) == tuple(effects), "the conductor writes other things than are struck"
        await faults.all_met.wait()


async def test_a_seal_survives_a_crash_at_every_effect(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: the power fails while a session is sealed, and it is never sealed, or sealed as two."""
    faults = Faults(plan(SEAL_EFFECTS))
    async with system(server, tmp_path, worker=False) as world:
        hosts = {name: await world.start(name) for name in (CALM, *faults.at)}
    faults.uids = {host.grant.uid.hex(): name for name, host in hosts.items()}
    async with connected(server, tmp_path) as world:
        await finish(world, hosts)
        async with conductor(world, faults) as directory:
            await settled(directory, faults, "STOPPED", SEAL_EFFECTS)
        async with conductor(world, Faults({})) as directory, asyncio.timeout(PATIENCE_S):
            for name in faults.at:
                await directory.until(name, lambda session: session.state == "STOPPED")
        for name, host in hosts.items():
            await check_sealed(world, name, host)


async def check_sealed(world: World, name: str, host: Host) -> None:
    history = await SessionLog(world.jet).history(name)
    kinds = [type(read_event(line)).__name__ for line in history]
    assert [kinds.count(kind) for kind in ("SealStarted", "Sealed")] == [1, 1], (name, kinds)
    manifests = DiskBlobs(world.data.manifests)
    assert manifests.list(f"{host.grant.uid.hex()}/") == [f"{host.grant.uid.hex()}/1"]
    raw = manifests.read(f"{host.grant.uid.hex()}/1")
    assert raw is not None
    manifest = Manifest.within(dsse.parse(raw, dsse.MANIFEST))
    chunks = DiskBlobs(world.data.chunks)
    for item in (*manifest.chunks, *manifest.index):
        data = chunks.read(f"{host.grant.uid.hex()}/{item.index:010}")
        assert data is not None
        assert h(data) == item.digest
    assert not DiskBlobs(world.data.quarantine).list()


async def test_a_destruction_survives_a_crash_at_every_effect(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: the power fails while a session is destroyed, and some of it stays, or comes back."""
    faults = Faults(plan(DESTROY_EFFECTS))
    async with system(server, tmp_path, worker=False) as world:
        hosts = {name: await world.start(name) for name in (CALM, *faults.at)}
        for host in hosts.values():
            await host.record(1, 100)
            DiskBlobs(world.data.chunks).put(f"{host.grant.uid.hex()}/0000000000", b"sealed")
    faults.uids = {host.grant.uid.hex(): name for name, host in hosts.items()}
    async with connected(server, tmp_path) as world:
        log = SessionLog(world.jet)
        for name in hosts:
            await log.execute(Cleanup(session=name, at_us=7, who="ann", cause="destroy", reason="over"))
        async with conductor(world, faults) as directory:
            await settled(directory, faults, "DESTROYED", DESTROY_EFFECTS)
        async with conductor(world, Faults({})) as directory, asyncio.timeout(PATIENCE_S):
            for name in faults.at:
                await directory.until(name, lambda s: s.state == "DESTROYED" and s.shredded is not None)
        for name, host in hosts.items():
            await check_destroyed(world, name, host)


async def check_destroyed(world: World, name: str, host: Host) -> None:
    uid, log = host.grant.uid, SessionLog(world.jet)
    recording = subjects.recording("host-1", name)
    assert [m async for m in (await Recordings.open(world.jet)).read_all(recording)] == []
    assert key_of(world.data.keys, uid) == b""
    assert DiskBlobs(world.data.chunks).list(f"{uid.hex()}/") == []
    raw = DiskBlobs(world.data.manifests).read(tombstone_name(uid))
    session = await log.load(name)
    assert raw is not None
    assert session.shredded is not None
    assert session.shredded.tombstone == h(raw)
    kinds = [type(read_event(line)).__name__ for line in await log.history(name)]
    assert kinds.count("Shredded") == 1


async def test_a_start_survives_a_crash_at_every_effect(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: the power fails while a session starts, and its host seals to a key that nobody has."""
    faults = Faults(plan(START_EFFECTS))
    async with connected(server, tmp_path) as world:
        log = SessionLog(world.jet)
        for number, name in enumerate((CALM, *faults.at), 1):
            session = await log.execute(requested(name, number))
            faults.uids[session.uid.hex()] = name
            await log.execute(Start(session=name, at_us=2, who="host-1", cause="start"))
        async with conductor(world, faults) as directory:
            await settled(directory, faults, "ACTIVE", START_EFFECTS)
        async with conductor(world, Faults({})) as directory, asyncio.timeout(PATIENCE_S):
            for name in faults.at:
                session = await directory.until(name, lambda s: s.state == "ACTIVE")
                await check_key(world, session)


async def check_key(world: World, session: Session) -> None:
    store = KeyStore(DiskKeyFiles(world.data.keys / "sessions"), Keyring(world.data.keys))
    async with store.using(session.uid, session.dek_id) as held:
        assert held is not None
        assert held.keys.intake_public == session.intake
