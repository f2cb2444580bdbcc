"""Owns the bare loop: one plain publisher, a durable stream, one plain reader that does all the work.

It is what a broker must cost. What the pipeline costs more buys restarts, replays and many workers.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

from infra.jetstream.plain_client import BareNats
from streams.bench.actors import Actor, Cue, Said
from streams.bench.case import Case
from streams.bench.check import check_chunks
from streams.bench.contender import Measure, Task
from streams.bench.line import Line, pools
from streams.bench.meter import Meter
from streams.roles.drivers import blobs, prepare_memory, server

STREAM, SUBJECT = "BARE", "bare.fragments"


async def publish(cue: Cue, spec: Said) -> Said:
    """Actor: seal a file's fragments and make them durable in the stream. spec: case, source, url."""
    prepare_memory()
    case = Case.of(spec["case"])
    sealing = case.fragments(Path(spec["source"]))

    async def sealed() -> AsyncIterator[bytearray]:
        while (fragment := await asyncio.to_thread(next, sealing, None)) is not None:
            yield fragment

    async with BareNats(spec["url"]) as broker:
        await cue.ready()
        began_s = time.time()
        await broker.publish_all(SUBJECT, sealed())
        return {"began_s": began_s, "published_s": time.time()}


async def read(cue: Cue, spec: Said) -> Said:
    """Actor: read the stream and store its chunks. spec: case, store, url."""
    prepare_memory()
    case = Case.of(spec["case"])
    threads, disk = pools()
    async with (
        BareNats(spec["url"]) as broker,
        Line(case, blobs(Path(spec["store"])), threads, disk) as line,
    ):
        await broker.make_stream(STREAM, SUBJECT)
        await cue.ready()
        reading = asyncio.create_task(_feed(broker, line))
        ended = await line.finish()
        stored_s = time.time()
        reading.cancel()
        return {"stored_s": stored_s, "chunks": ended.chunks}


async def _feed(broker: BareNats, line: Line) -> None:
    async for batch in broker.read(STREAM, SUBJECT):
        await line.take(batch)


async def measure(task: Task) -> Measure:
    """The bare loop on this machine."""
    case, store = Case.new("bench-bare", task.settings.session()), task.folder / "chunks"
    broker = server(task.folder / "nats", task.settings.nats_memory_mib)
    await broker.start()
    spec = {"case": case.said(), "source": str(task.source.path), "store": str(store), "url": broker.url}
    log = task.folder / "log"
    try:
        async with (
            Actor("bare:read", spec, log, task.environment) as reader,
            Actor("bare:publish", spec, log, task.environment) as publisher,
            Meter({"server": broker.pid, "reader": reader.pid, "publisher": publisher.pid}) as meter,
        ):
            reader.go()
            publisher.go()
            published, read = await asyncio.gather(publisher.done(), reader.done())
    finally:
        await broker.stop()
    stored = check_chunks(store / case.uid.hex(), case.dek, read["chunks"], task.source, "the bare loop")
    began_s = published["began_s"]
    more = {"published": published["published_s"] - began_s}
    return Measure(read["stored_s"] - began_s, read["chunks"], stored, meter.used, meter.others, more)
