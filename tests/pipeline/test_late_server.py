"""A server that is away for a moment when a service begins."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.blobs.disk import DiskBlobs
from infra.jetstream import Jet
from infra.keys.signers import Signers
from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.errors import Unavailable
from streams.conductor.conductor import Conductor
from streams.conductor.parts import ConductorParts
from streams.event_store.event_store import EventStore
from streams.event_store.recordings import Recordings
from streams.event_store.session_directory import SessionDirectory
from streams.evidence.evidence_store import EvidenceStore
from streams.retention.sealed_source import SourceRetention
from tests.support.machine.waiting import until
from tests.support.pipeline.conducted import World, connected
from tests.support.pipeline.faulty import checked, key_store


class LateJet:
    """A connection whose first question of each kind about each stream fails."""

    def __init__(self, jet: Jet) -> None:
        self._jet, self.asked = jet, set[str]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._jet, name)

    async def last(self, stream: str, subject: str) -> Any:
        self._ask(f"last {stream}")
        return await self._jet.last(stream, subject)

    async def info(self, stream: str) -> Any:
        self._ask(f"info {stream}")
        return await self._jet.info(stream)

    def follow(self, stream: str, *args: Any) -> Any:
        self.asked.add(f"follow {stream}")
        return self._jet.follow(stream, *args)

    def _ask(self, question: str) -> None:
        if question not in self.asked:
            self.asked.add(question)
            raise Unavailable(f"{question}: the server is away", code="nats.disconnected")


async def service(kind: type, jet: Any, directory: SessionDirectory, world: World) -> Any:
    recordings = replace(await Recordings.open(world.jet), jet=jet)
    data, keys = world.data, key_store(world.data)
    evidence = EvidenceStore(DiskBlobs(data.chunks), DiskBlobs(data.manifests), DiskBlobs(data.quarantine))
    if kind is Conductor:
        parts = (EventStore.over(recordings, directory), keys, evidence, Signers(data.keys))
        return Conductor(ConductorParts(*parts, require_keys=checked(world.jet, data)))
    return SourceRetention(recordings, directory, evidence, 0)


@pytest.mark.parametrize(
    ("kind", "goes_on"),
    [
        (SourceRetention, {f"info {subjects.RECORDINGS}"}),
        (Conductor, {f"follow {subjects.CHUNKS}", f"follow {subjects.DEAD}"}),
    ],
)
async def test_a_service_waits_for_a_server_that_is_away_at_its_start(
    server: NatsServer, tmp_path: Path, kind: type, goes_on: set[str]
) -> None:
    """Breaks: a server that restarts ends the role, and every service in it, until it is started again."""
    async with connected(server, tmp_path) as world:
        jet: Any = LateJet(world.jet)
        directory = SessionDirectory(jet)
        following = asyncio.create_task(directory.run())
        running = asyncio.create_task((await service(kind, jet, directory, world)).run())
        try:
            await until(lambda: running.done() or goes_on <= jet.asked)
            assert not running.done(), running.exception()
        finally:
            running.cancel()
            following.cancel()
            await asyncio.gather(running, following, return_exceptions=True)
