"""Measures the real system as a contender: supervised, with a publisher in a process of its own.

1. It starts as `lucid up` starts it; nothing in it knows of the measurement.
2. Times come from the streams: when the server had the last `stored`, and when it had `Sealed`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from schemas import subjects
from schemas.errors import Unavailable
from schemas.events.chunk import Recorded
from schemas.events.session import Sealed, State, Transition
from schemas.ports import Jet
from schemas.ports.messages import Message
from streams.bench.actors import Actor, Cue, JsonObject
from streams.bench.contender import Measure, Task, check_chunks
from streams.bench.meter import Meter
from streams.event_store.chunk_log import recorded_events
from streams.event_store.session_log import read_event
from streams.host.fragment_message import fragment_bytes
from streams.host.publisher import READ_FRAGMENTS, Publisher
from streams.host.send_quota import SendQuota
from streams.host.session_start import start_session
from streams.host.source_feed import publish
from streams.keys.keystore import KeyStore
from streams.roles.drivers import FileSource, Installation, connected, prepare_memory, traced
from streams.roles.local_system import running

SESSION, HOST = "bench-pipeline", "bench-host"
STALLED_S = 60.0
"""The measurement is given up when no event comes for so long."""


@dataclass(frozen=True, slots=True)
class Running:
    """A system that runs in another process. pids: by role, `supervisor` included.

    environment: of a process that connects to it. api_url: of its HTTP service; empty: it has none.
    """

    jet: Jet
    here: Installation
    environment: Mapping[str, str]
    url: str
    pids: dict[str, int]
    api_url: str = ""


@asynccontextmanager
async def system(task: Task, *, http: bool = False) -> AsyncIterator[Running]:
    """The whole system in the task's folder. http: with its HTTP service."""
    environment = {**task.environment, "LUCID_DATA": str(task.folder / "data")}
    async with Actor(supervise, {"http": http}, task.folder / "log", environment) as supervisor:
        pids = {**supervisor.greeting["pids"], "supervisor": supervisor.pid}
        url, here = supervisor.greeting["url"], Installation.here(environment)
        try:
            async with connected(url, "lucid-bench", credential=here.credential) as jet:
                yield Running(jet, here, environment, url, pids, supervisor.greeting["api_url"])
        finally:
            supervisor.go()
            await supervisor.done()


async def supervise(cue: Cue, spec: JsonObject) -> JsonObject:
    """Actor: run everything until the parent says stop. spec: http."""
    async with running(Installation.here(), quiet=True, http=spec["http"]) as up:
        pids = {child.name: child.pid for child in up.children}
        await cue.ready(url=up.server.url, api_url=up.api_url, pids={"server": up.server.pid, **pids})
    return {}


async def record(cue: Cue, spec: JsonObject) -> JsonObject:
    """Actor: record one file as a session. spec: source, url, session."""
    prepare_memory()
    here = Installation.here()
    settings = here.settings.session()
    async with connected(spec["url"], "lucid-publisher") as jet, traced(jet, "lucid-host", here.data):
        grant = await start_session(jet, here.identity, HOST, spec["session"], settings)
        source = FileSource(spec["source"], READ_FRAGMENTS * fragment_bytes(settings.chunk_bytes))
        publisher = Publisher(jet, grant, quota=SendQuota.of(jet, grant.session, grant.credential))
        await cue.ready(uid=grant.uid.hex())
        began_s = time.time()
        await publish(aiter(source), publisher, "opaque")
        await publisher.finish()
        published_s = time.time()
        await publisher.close()
        return {"began_s": began_s, "published_s": published_s}


async def measure(task: Task) -> Measure:
    """The pipeline on this machine."""
    async with system(task) as up:
        spec = {"source": str(task.source.path), "url": up.url, "session": SESSION}
        async with (
            Actor(record, spec, task.folder / "log", up.environment) as publisher,
            Meter({**up.pids, "publisher": publisher.pid}) as meter,
        ):
            publisher.go()
            sealed_s = await sealed(up.jet, SESSION)
            published = await publisher.done()
        stored_s, began_s = await stored(up.jet, SESSION), published["began_s"]
        chunks = await closed_chunks(up.jet, SESSION)
        uid = bytes.fromhex(publisher.greeting["uid"])
        async with KeyStore(up.here.key_files, up.here.keyring).using(uid) as held:
            assert held is not None
            dek = held.keys.dek
        folder = up.here.data.chunks / uid.hex()
        on_disk = check_chunks(folder, dek, chunks, task.source, "the pipeline")
        dead = (await up.jet.info(subjects.DEAD)).messages
    more = {"sealed": sealed_s - began_s, "published": published["published_s"] - began_s, "dead": dead}
    return Measure(stored_s - began_s, chunks, on_disk, meter.used, meter.others, more)


async def sealed(jet: Jet, session: str) -> float:
    """When the session was sealed, as the server saw it. Raises Unavailable (bench.stalled, bench.failed)."""
    following = aiter(jet.follow(subjects.LIFECYCLE, [subjects.lifecycle(session)]))
    while True:
        before = (await jet.info(subjects.CHUNKS)).last_seq
        coming = asyncio.ensure_future(anext(following))
        while not (await asyncio.wait({coming}, timeout=STALLED_S))[0]:
            at, before = before, (await jet.info(subjects.CHUNKS)).last_seq
            if at == before:
                coming.cancel()
                raise Unavailable(f"{session} has not moved for {STALLED_S:g} s", code="bench.stalled")
        item = coming.result()
        event = read_event(item.data) if isinstance(item, Message) else None
        if isinstance(event, Sealed) and isinstance(item, Message):
            return item.stream_time_ns / 1e9
        if isinstance(event, Transition) and event.to_state == State.ERROR:
            raise Unavailable(f"{session} went to ERROR: {event.reason}", code="bench.failed")


async def stored(jet: Jet, session: str) -> float:
    """When its last chunk was stored, as the server saw it."""
    last = await jet.last(subjects.CHUNKS, subjects.chunk(subjects.STORED, session))
    return last.stream_time_ns / 1e9 if last else 0.0


async def closed_chunks(jet: Jet, session: str) -> int:
    """How many chunks were recorded."""
    return sum([1 async for event in recorded_events(jet, session) if isinstance(event, Recorded)])
