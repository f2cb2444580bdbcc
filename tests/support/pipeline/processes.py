"""A whole system of real processes, as `lucid up` starts it, and hosts that send prepared fragments."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from infra.blobs.disk import DiskBlobs
from infra.disk.data_dir import DataDir
from infra.jetstream import Jet, Message
from infra.nats_server.server import NatsServer
from infra.processes import children
from infra.processes.children import Child
from schemas import subjects
from schemas.config.backoff import Backoff
from schemas.config.settings import Settings
from schemas.errors import Unavailable
from schemas.events.chunk import Ended, Recorded
from schemas.events.session import State, Transition
from schemas.format import dsse
from schemas.format.digest import h
from schemas.format.manifest import Manifest
from streams.control.client import call
from streams.event_store.chunk_log import recorded_events
from streams.event_store.session_log import read_event
from streams.host.outbox import Outbox
from streams.roles import local_system
from streams.roles.drivers import Installation
from tests.support.pipeline.prepared import Outcome, Prepared, border_of

AT_ONCE = 12
"""Sessions that are started, or asked about, together."""
SEALED_S = 120.0


@dataclass
class Processes:
    """What runs. `jet` is the supervisor's own connection."""

    data: DataDir
    server: NatsServer
    conductor: Child
    workers: list[Child]
    jet: Jet

    @property
    def victims(self) -> Mapping[str, int]:
        """Process ids of what is running now, by name."""
        named = {"nats": self.server.pid, "conductor": self.conductor.pid}
        named |= {child.name: child.pid for child in self.workers}
        return {name: pid for name, pid in named.items() if pid}

    async def begin(self, prepared: Prepared) -> None:
        """Make the session's own key file, then create and start it."""
        await asyncio.to_thread(prepared.make_key, self.data.keys)
        await call(self.jet, "create", prepared.create().model_dump(mode="json"))
        started = await call(self.jet, "start", {"session": prepared.session, "cause": "start"})
        assert started["intake"] == prepared.keys.intake_public.hex()

    async def begin_all(self, prepared: Sequence[Prepared]) -> None:
        await _some_at_once([self.begin(one) for one in prepared])

    async def send(self, prepared: Prepared, order: Sequence[int] | None = None) -> None:
        """Send fragments by number, each when the stream holds the one before: the order is the stream's."""
        for number in order if order is not None else range(len(prepared.fragments)):
            await self.patiently(prepared.subject, prepared.fragments[number])

    async def patiently(self, subject: str, data: bytes) -> None:
        """Send it, again only when the connection breaks: a server that is slow holds it once."""
        while True:
            with suppress(Unavailable):
                await self.jet.publish(subject, data, timeout_s=SEALED_S)
                return
            await asyncio.sleep(0.05)

    async def show(self, session: str) -> dict[str, Any]:
        """What `show` says, asked again while nobody answers."""
        while True:
            with suppress(Unavailable):
                return await call(self.jet, "show", {"session": session}, 5)
            await asyncio.sleep(0.1)

    async def sealed(self, session: str, patience_s: float = SEALED_S) -> dict[str, Any]:
        """What `show` says of the session once it is sealed and at rest."""
        end_s = asyncio.get_running_loop().time() + patience_s
        while not ((shown := await self.show(session))["sealed"] and shown["state"] == State.STOPPED):
            assert asyncio.get_running_loop().time() < end_s, f"not sealed after {patience_s} s: {shown}"
            await asyncio.sleep(0.05)
        return shown

    async def check(self, prepared: Prepared, expected: Outcome) -> None:
        """Wait for the seal, then compare everything that was made with what must be made."""
        shown = await self.sealed(prepared.session)
        assert shown["seal"]["root"] == expected.root.hex(), prepared.session
        assert await self.borders(prepared.session) == expected.borders
        await asyncio.to_thread(self.check_files, prepared, expected)

    async def check_all(self, expected: Sequence[tuple[Prepared, Outcome]]) -> None:
        await self._all_stopped({prepared.session for prepared, _ in expected})
        await _some_at_once([self.check(prepared, wanted) for prepared, wanted in expected])

    async def _all_stopped(self, sessions: set[str]) -> None:
        """Wait without asking: two hundred sessions that are asked about are a load of their own."""
        try:
            async with asyncio.timeout(SEALED_S):
                async for item in self.jet.follow(subjects.LIFECYCLE, ["lucid.lifecycle.*"]):
                    event = read_event(item.data) if isinstance(item, Message) else None
                    if isinstance(event, Transition) and event.to_state == State.STOPPED:
                        sessions.discard(event.session)
                    if not sessions:
                        return
        except TimeoutError:
            raise AssertionError(f"not stopped after {SEALED_S} s: {sorted(sessions)}") from None

    async def borders(self, session: str) -> list[tuple[int, int, int, int]]:
        """Of every recorded chunk; fails unless indices follow one another and the end comes once, last."""
        events = [event async for event in recorded_events(self.jet, session)]
        recorded = [event for event in events if isinstance(event, Recorded)]
        assert [event.index for event in recorded] == list(range(len(recorded))), session
        assert [type(event) for event in events[len(recorded) :]] == [Ended], session
        return [border_of(event) for event in recorded]

    def check_files(self, prepared: Prepared, expected: Outcome) -> None:
        """Files and manifest: each once, each as expected, and nothing beside them."""
        uid = prepared.uid.hex()
        chunks = DiskBlobs(self.data.chunks, self.data.quarantine)
        names = [f"{uid}/{index:010}" for index in range(len(expected.digests))]
        assert chunks.list(f"{uid}/") == names, prepared.session
        assert [h(chunks.read(name) or b"") for name in names] == expected.digests, prepared.session
        assert DiskBlobs(self.data.quarantine).list(f"{uid}/") == []
        assert DiskBlobs(self.data.manifests).list(f"{uid}/") == [f"{uid}/1"]
        manifest = self.manifest(prepared)
        assert manifest.totals.fragments == len(prepared.fragments)
        assert (manifest.end, manifest.gaps, manifest.equivocations) == ("final", (), ())

    def manifest(self, prepared: Prepared) -> Manifest:
        raw = DiskBlobs(self.data.manifests).read(f"{prepared.uid.hex()}/1")
        assert raw is not None
        return Manifest.within(dsse.parse(raw, dsse.MANIFEST))

    async def lucid(self, *arguments: str) -> tuple[int, str]:
        """Run the program against this system: exit code, and all that it said."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "streams.cli.main", *arguments),
            env={**os.environ, "LUCID_DATA": str(self.data.path), "NO_COLOR": "1"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, said.decode()


def outbox(system: Processes, prepared: Prepared) -> Outbox:
    """A publisher's own outbox, that sends until it is acknowledged."""

    async def publish(data: bytes, headers: Mapping[str, str]) -> None:
        await system.jet.publish(prepared.subject, data, headers)

    return Outbox(publish)


@asynccontextmanager
async def processes(path: Path, *, workers: int = 1) -> AsyncIterator[Processes]:
    """nats-server, conductor and worker as `up` starts them. workers above 1 own the same partitions."""
    data = DataDir(path / "data")
    with _clean_environment():
        here = Installation(Settings(data=data.path))
        async with local_system.running(here, quiet=True, http=False) as system:
            conductor, worker = system.children
            more = [_another(worker, n, data) for n in range(2, workers + 1)]
            for child in more:
                await child.start()
            try:
                yield Processes(data, system.server, conductor, [worker, *more], system.jet)
            finally:
                await asyncio.gather(*(child.stop() for child in more))


@contextmanager
def quick_restarts() -> Iterator[None]:
    """What is killed comes back at once, however often: a real supervisor waits longer each time."""
    with patch.object(children, "RESTART", Backoff(0.1, 0.1)):
        yield


def _another(worker: Child, number: int, data: DataDir) -> Child:
    return Child(f"worker-{number}", worker._command, worker._environment, data.logs / f"worker-{number}.log")


@contextmanager
def _clean_environment() -> Iterator[None]:
    """Children inherit the environment; settings of whoever runs the tests are not for them."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("LUCID_", "NATS_", "JWT_"))
    }
    with patch.dict(os.environ, kept, clear=True):
        yield


async def _some_at_once(work: Sequence[Any]) -> None:
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(item: Any) -> None:
        async with slots:
            await item

    async with asyncio.TaskGroup() as tasks:
        for item in work:
            tasks.create_task(one(item))
