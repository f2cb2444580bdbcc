"""A whole system inside one test: a real server, conductor, worker and commands; a host that speaks to it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from handlers.format.fragment import FragmentSealer
from infra.disk.data_dir import DataDir
from infra.jetstream import Jet, connect
from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.config.settings import Settings
from schemas.errors import Unavailable
from schemas.events.commands import CREATE_PREFIX, Create, create_request
from schemas.events.session import SessionSettings
from schemas.format.fragment import PartSettings
from schemas.ports.messages import Message
from streams.control.client import call
from streams.event_store import topology
from streams.host.publisher import Grant
from streams.host.session_start import start_session
from streams.roles.drivers import Installation
from streams.roles.services import run_conductor, run_worker
from tests.support.machine.waiting import PATIENCE_S

SETTINGS = SessionSettings(chunk_bytes=1 << 18)
PART = PartSettings(encoder="none", reason="start")


@dataclass
class Host:
    """One session's host: makes fragments and publishes them, one after the other."""

    jet: Jet
    grant: Grant
    now_us: int = 1_700_000_000_000_000
    sent: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        grant = self.grant
        self.sealer = FragmentSealer(grant.uid, 0, grant.sign_key, grant.intake_public, grant.genesis)

    async def send(self, fragment: bytes) -> None:
        subject = subjects.recording(self.grant.host, self.grant.session)
        await self.jet.publish(subject, fragment, timeout_s=PATIENCE_S)
        self.sent.append(fragment)

    async def record(self, fragments: int, size: int = 50_000) -> None:
        if not self.sealer.state.next_seq:
            await self.send(self.sealer.part(PART, self.now_us))
        for _ in range(fragments):
            self.now_us += 1000
            await self.send(self.sealer.data(bytes([len(self.sent) % 251]) * size, self.now_us))

    async def final(self) -> None:
        await self.send(self.sealer.final([], self.now_us))


@dataclass
class World:
    """What runs, and how a test asks it."""

    jet: Jet
    data: DataDir
    settings: Settings

    def __post_init__(self) -> None:
        self.jet.credential = self.here.credential

    @property
    def here(self) -> Installation:
        return Installation(replace(self.settings, data=self.data.path))

    async def start(self, session: str, host: str = "host-1") -> Host:
        grant = await start_session(self.jet, self.here.identity, host, session, SETTINGS)
        return Host(self.jet, grant)

    async def ask(self, name: str, session: str, **more: Any) -> dict[str, Any]:
        return await call(self.jet, name, {"session": session, **more})

    async def answered(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(Unavailable):
                    await call(self.jet, "ping", {})
                    return
                await asyncio.sleep(0.02)

    async def stored(self, session: str, chunks: int) -> None:
        """Return when so many chunks are stored."""
        async with asyncio.timeout(PATIENCE_S):
            async for item in self.jet.follow(subjects.CHUNKS, [subjects.chunk("stored", session)]):
                chunks -= isinstance(item, Message)
                if chunks == 0:
                    return

    async def until(self, session: str, *states: str) -> dict[str, Any]:
        end_s = asyncio.get_running_loop().time() + PATIENCE_S
        while (shown := await self.ask("show", session))["state"] not in states:
            assert asyncio.get_running_loop().time() < end_s, f"still {shown['state']}: {shown}"
            await asyncio.sleep(0.05)
        return shown


@asynccontextmanager
async def running(role: Any, world: World) -> AsyncIterator[None]:
    """One role, ended like a service; what ended it before is raised."""
    stop = asyncio.Event()
    jet = await connect(world.jet.url, name="role")
    task = asyncio.create_task(role(world.here, jet, stop))
    try:
        yield
    finally:
        stop.set()
        await task
        await jet.close()


@asynccontextmanager
async def connected(server: NatsServer, path: Path) -> AsyncIterator[World]:
    """The streams and a data directory; nothing runs."""
    jet = await connect(server.url, name="test")
    await topology.declare(jet, 2 << 30)
    yield World(jet, DataDir(path / "data"), Settings(scrub_mb_per_s=0))
    await jet.close()


@asynccontextmanager
async def system(server: NatsServer, path: Path, *, worker: bool = True) -> AsyncIterator[World]:
    """The conductor with its commands, and the worker if it is wanted."""
    async with connected(server, path) as world, running(run_conductor, world):
        await world.answered()
        if worker:
            async with running(run_worker, world):
                yield world
        else:
            yield world


def requested(session: str, counter: int) -> Create:
    """A host's request for a session."""
    key = Ed25519PrivateKey.from_private_bytes(b"h" * 32)
    public = key.public_key().public_bytes_raw()
    asked = create_request(session, "host-1", public, counter, bytes(32), SETTINGS)
    return Create(
        session=session,
        at_us=1,
        who="host-1",
        cause=f"create-{counter}",
        host="host-1",
        host_key=public,
        counter=counter,
        prev_genesis=bytes(32),
        settings=SETTINGS,
        request=key.sign(CREATE_PREFIX + asked),
    )
