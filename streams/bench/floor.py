"""Owns the floor: what the work itself costs, with no broker between host and platform.

The host's sealing runs in the same threads as the platform's work, so it is the least that one machine needs
for both.
"""

import asyncio
import time
from itertools import islice
from pathlib import Path

from streams.bench.actors import Actor, Cue, Said
from streams.bench.case import Case
from streams.bench.check import check_chunks
from streams.bench.contender import Measure, Task
from streams.bench.line import Line, pools
from streams.bench.meter import Meter
from streams.roles.drivers import blobs, prepare_memory

BATCH = 4
"""Fragments that are sealed in one go: about what `record` looks at in one go."""


async def floor(cue: Cue, spec: Said) -> Said:
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


async def measure(task: Task) -> Measure:
    """The floor on this machine."""
    case, store = Case.new("bench-floor", task.settings.session()), task.folder / "chunks"
    spec = {"case": case.said(), "source": str(task.source.path), "store": str(store)}
    async with (
        Actor("floor:floor", spec, task.folder / "log", task.environment) as actor,
        Meter({"floor": actor.pid}) as meter,
    ):
        actor.go()
        done = await actor.done()
    stored = check_chunks(store / case.uid.hex(), case.dek, done["chunks"], task.source, "floor")
    return Measure(done["stored_s"] - done["began_s"], done["chunks"], stored, meter.used, meter.others)
