"""Sources that are purged while a test looks at the stream."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from handlers.evidence.replay import Judgement
from infra.blobs.disk import DiskBlobs
from schemas.ports.messages import StreamInfo
from streams.event_store import topology
from streams.event_store.recordings import Recordings
from streams.event_store.session_directory import SessionDirectory
from streams.event_store.session_log import SessionLog
from streams.evidence.evidence_store import EvidenceStore
from streams.evidence.replay import Replay
from streams.evidence.sealing import material_of
from streams.retention.sealed_source import SourceRetention
from streams.scheduling.threads import Threads
from tests.support.pipeline.conducted import Host, World
from tests.support.pipeline.faulty import key_store


async def seal(world: World, *names: str, fragments: int = 8) -> dict[str, Host]:
    """Recorded and sealed, one after the other."""
    hosts = {}
    for name in names:
        hosts[name] = await world.start(name)
        await hosts[name].record(fragments)
        await hosts[name].final()
        await world.until(name, "STOPPED")
    return hosts


async def held(world: World) -> set[str]:
    """Sessions of which the recording streams hold something."""
    recordings = await Recordings.open(world.jet)
    held: set[str] = set()
    for stream in recordings.streams:
        held |= await recordings.names(stream) or set()
    return held


async def fullest(world: World) -> StreamInfo:
    """The recording stream that holds most."""
    recordings = await Recordings.open(world.jet)
    return max(await recordings.infos(), key=lambda info: info.bytes)


async def limit_recordings(world: World, max_bytes: int) -> None:
    """Let every recording stream hold at most so much."""
    shards = (await Recordings.open(world.jet)).shards
    for spec in topology.streams(1 << 30, shards=shards)[:shards]:
        await world.jet.declare(replace(spec, max_bytes=max_bytes))


@dataclass
class Clock:
    us: int

    def __call__(self) -> int:
        return self.us


@asynccontextmanager
async def looking(
    world: World, retention_s: float = 0, jet: Any = None
) -> AsyncIterator[tuple[SourceRetention, Clock]]:
    """A SourceRetention of its own that knows every session and looks only when it is told to."""
    directory, clock = SessionDirectory(world.jet, sources=True), Clock(2**51)
    following = asyncio.create_task(directory.run())
    quarantine = DiskBlobs(world.data.quarantine)
    evidence = EvidenceStore(DiskBlobs(world.data.chunks), DiskBlobs(world.data.manifests), quarantine)
    try:
        await directory.ready()
        recordings = await Recordings.open(jet or world.jet)
        yield SourceRetention(recordings, directory, evidence, retention_s, clock), clock
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def replayed(world: World, name: str) -> list[Judgement]:
    log, session = SessionLog(world.jet), await SessionLog(world.jet).load(name)
    keys = await key_store(world.data).open(session.uid)
    assert keys is not None
    blobs = DiskBlobs(world.data.chunks, world.data.quarantine)
    manifest = EvidenceStore(blobs, DiskBlobs(world.data.manifests), blobs).manifest(session)
    material = await material_of(world.jet, log, session)
    recordings = await Recordings.open(world.jet)
    with Threads() as threads:
        return [
            one.outcome async for one in Replay(recordings, blobs, threads, keys, manifest, material).run()
        ]
