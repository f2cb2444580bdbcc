"""Measures the baselines that the pipeline is compared with: the disk, the floor and the bare loop.

    disk    the same bytes twice, in two files at once, synced chunk by chunk; nothing else
    floor   the pure functions in two threads, durable put and read back; no broker
    bare    the same functions behind one plain publisher, one durable stream and one plain reader

1. Bytes must be durable twice, in the stream and in the store. So the disk is written twice, too.
2. The floor is the least that one machine needs for host and platform: its threads seal the fragments, too.
3. The bare loop is the least that a broker costs. The pipeline costs more, and that buys restarts, replays
   and many workers.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from itertools import islice
from pathlib import Path

from infra.jetstream.plain_client import PlainClient
from streams.bench.actors import Actor, Cue, JsonObject, Role
from streams.bench.case import Case
from streams.bench.contender import Measure, Task, check_chunks, check_digest, digest_of
from streams.bench.line import Line, pools
from streams.bench.meter import Meter
from streams.roles.drivers import blobs, prepare_memory, server

COPIES = 2
BATCH = 4
"""Fragments that the floor seals in one go: about as many as `record` reads in one go."""
STREAM, SUBJECT = "BARE", "bare.fragments"


async def measure_disk(task: Task) -> Measure:
    """The limit of the disk itself."""
    copies = [task.folder / f"copy-{number}" for number in range(COPIES)]
    spec = {
        "source": str(task.source.path),
        "block": task.settings.chunk_bytes,
        "copies": [*map(str, copies)],
    }
    async with (
        Actor(copy, spec, task.folder / "log", task.environment) as actor,
        Meter({"disk": actor.pid}) as meter,
    ):
        actor.go()
        done = await actor.done()
    for path in copies:
        check_digest(await asyncio.to_thread(digest_of, path), task.source, "the disk")
    stored = sum(path.stat().st_size for path in copies)
    return Measure(done["seconds"], 0, stored, meter.used, meter.others)


async def copy(cue: Cue, spec: JsonObject) -> JsonObject:
    """Actor: write a file several times, each copy in a thread of its own. spec: source, block, copies."""

    def write(path: str) -> None:
        with (
            Path(spec["source"]).open("rb", buffering=0) as source,
            Path(path).open("wb", buffering=0) as file,
        ):
            while block := source.read(spec["block"]):
                file.write(block)
                os.fdatasync(file.fileno())

    await cue.ready()
    began_s = time.monotonic()
    await asyncio.gather(*(asyncio.to_thread(write, path) for path in spec["copies"]))
    return {"seconds": time.monotonic() - began_s}


async def measure_floor(task: Task) -> Measure:
    """The floor on this machine."""
    case, store = Case.new("bench-floor", task.settings.session()), task.folder / "chunks"
    spec = {"case": case.as_json(), "source": str(task.source.path), "store": str(store)}
    async with (
        Actor(seal_and_store, spec, task.folder / "log", task.environment) as actor,
        Meter({"floor": actor.pid}) as meter,
    ):
        actor.go()
        done = await actor.done()
    stored = check_chunks(store / case.uid.hex(), case.dek, done["chunks"], task.source, "floor")
    return Measure(done["stored_s"] - done["began_s"], done["chunks"], stored, meter.used, meter.others)


async def seal_and_store(cue: Cue, spec: JsonObject) -> JsonObject:
    """Actor: seal and store one file. spec: case, source, store."""
    prepare_memory()
    case = Case.of(spec["case"])
    threads, disk = pools()
    sealing = enumerate(case.fragments(Path(spec["source"])), 1)
    loop = asyncio.get_running_loop()
    async with Line(case, blobs(Path(spec["store"])), threads, disk) as line:
        await cue.ready()
        began_s = time.time()
        while batch := await loop.run_in_executor(threads, lambda: list(islice(sealing, BATCH))):
            await line.take(batch)
        ended = await line.finish()
        return {"began_s": began_s, "stored_s": time.time(), "chunks": ended.chunks}


async def measure_bare(task: Task) -> Measure:
    """The bare loop on this machine."""
    case, store = Case.new("bench-bare", task.settings.session()), task.folder / "chunks"
    spec = {"case": case.as_json(), "store": str(store)}
    published, done, meter = await through_server(task, publish, ("reader", read), spec)
    stored = check_chunks(store / case.uid.hex(), case.dek, done["chunks"], task.source, "the bare loop")
    began_s = published["began_s"]
    more = {"published": published["published_s"] - began_s}
    return Measure(done["stored_s"] - began_s, done["chunks"], stored, meter.used, meter.others, more)


async def through_server(
    task: Task, publish: Role, reader: tuple[str, Role], spec: JsonObject
) -> tuple[JsonObject, JsonObject, Meter]:
    """Run a publisher and a reader over a server of their own: the report of each, and what all three used.

    reader: its name and role. spec: what both get; source and url are added.
    """
    broker, (name, read) = server(task.folder / "nats", task.settings.nats_memory_mib), reader
    await broker.start()
    both, log = {**spec, "source": str(task.source.path), "url": broker.url}, task.folder / "log"
    try:
        async with (
            Actor(read, both, log, task.environment) as reading,
            Actor(publish, both, log, task.environment) as publishing,
            Meter({"server": broker.pid, name: reading.pid, "publisher": publishing.pid}) as meter,
        ):
            reading.go()
            publishing.go()
            published, done = await asyncio.gather(publishing.done(), reading.done())
    finally:
        await broker.stop()
    return published, done, meter


async def publish(cue: Cue, spec: JsonObject) -> JsonObject:
    """Actor: seal a file's fragments and make them durable in the stream. spec: case, source, url."""
    prepare_memory()
    case = Case.of(spec["case"])
    sealing = case.fragments(Path(spec["source"]))

    async def sealed() -> AsyncIterator[bytearray]:
        while (fragment := await asyncio.to_thread(next, sealing, None)) is not None:
            yield fragment

    async with PlainClient(spec["url"]) as broker:
        await cue.ready()
        began_s = time.time()
        await broker.publish_all(SUBJECT, sealed())
        return {"began_s": began_s, "published_s": time.time()}


async def read(cue: Cue, spec: JsonObject) -> JsonObject:
    """Actor: read the stream and store its chunks. spec: case, store, url."""
    prepare_memory()
    case = Case.of(spec["case"])
    threads, disk = pools()
    async with (
        PlainClient(spec["url"]) as broker,
        Line(case, blobs(Path(spec["store"])), threads, disk) as line,
    ):
        await broker.make_stream(STREAM, SUBJECT)
        await cue.ready()
        reading = asyncio.create_task(_feed(broker, line))
        ended = await line.finish()
        stored_s = time.time()
        reading.cancel()
        return {"stored_s": stored_s, "chunks": ended.chunks}


async def _feed(broker: PlainClient, line: Line) -> None:
    async for batch in broker.read(STREAM, SUBJECT):
        await line.take(batch)
