"""Owns many sessions at once: each at its own pace, or idle; how long a chunk waits, and what that costs.

1. Sessions begin spread over the time that a chunk takes to fill, as independent ones would.
2. A chunk's wait is the time between its `recorded` and its `stored`, as the server saw them. Chunks that
   their session's end closed are left out: here all sessions end at once, which no day brings.
3. CPU is measured only while all sessions run.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.datadir import DataDir
from infra.jetstream import Jet, connect
from infra.settings import load_settings
from schemas import subjects
from schemas.chunk_events import Recorded, Stored
from schemas.upcast import read_event
from streams.bench.actors import Actor, Cue, Said
from streams.bench.contender import Task
from streams.bench.meter import Meter
from streams.bench.pipeline import Running, system
from streams.enrol import start_session
from streams.publisher import TICK_S, Publisher

CHUNK_BYTES = 1 << 20
BEAT_S = 1.0
"""A capture gives one movie fragment a second."""
STARTS_AT_ONCE = 8
LATE_S = 1.0
"""A publisher that is so late, or a chunk that waits so long, shows that the system does not keep up."""
DRAIN_S = 60.0
SETTLE_S = 2.0


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of the system. rate: bytes a second of each session; 0: idle, ticks only."""

    sessions: int
    seconds: float
    rate: int

    @property
    def spread_s(self) -> float:
        """Over which the sessions' first beats are spread."""
        return CHUNK_BYTES / self.rate if self.rate else min(TICK_S, self.seconds)


async def measure(task: Task, load: Load) -> dict[str, Any]:
    """What the system does under this load, as JSON tells it."""
    async with system(task) as up:
        spec = {
            "source": str(task.source.path),
            "url": up.url,
            "data": str(up.data.path),
            "sessions": load.sessions,
            "seconds": load.seconds,
            "rate": load.rate,
        }
        async with Actor("sessions:play", spec, task.folder / "log", task.environment) as publisher:
            publisher.go()
            await asyncio.sleep(load.spread_s + SETTLE_S)
            async with Meter({**up.pids, "publisher": publisher.pid}) as meter:
                began_s = time.monotonic()
                await asyncio.sleep(load.seconds)
                measured_s = time.monotonic() - began_s
            played = await publisher.done()
        said: dict[str, Any] = {
            "sessions": load.sessions,
            "seconds": measured_s,
            "rate_bits": load.rate * 8,
            "late_s": played["late_s"],
            "others_share": meter.others,
            "processes": {
                name: {"cpu_share": used.cpu_s / measured_s, "peak_bytes": used.peak_bytes}
                for name, used in meter.used.items()
            },
        }
        if load.rate:
            said |= await _waits(up, played["finished_s"])
            said["keeps_up"] = (
                said["late_s"] < LATE_S and said["wait_ms"]["max"] < 1000 * LATE_S and not said["missing"]
            )
        return said


async def play(cue: Cue, spec: Said) -> Said:
    """Actor: start the sessions, feed each at its pace, end them. spec: as a Load, source, url, data."""
    load = Load(spec["sessions"], spec["seconds"], spec["rate"])
    jet = await connect(spec["url"], name="lucid-publisher")
    settings = load_settings().session().model_copy(update={"chunk_bytes": CHUNK_BYTES})
    hosts, turn = DataDir(Path(spec["data"])).folder("hosts"), asyncio.Semaphore(STARTS_AT_ONCE)

    async def begin(number: int) -> Publisher:
        async with turn:
            host = f"bench-host-{number:04}"
            grant = await start_session(jet, hosts, host, f"bench-{number:04}", settings)
            publisher = Publisher(jet, grant)
            await publisher.begin_part("opaque", "start")
            return publisher

    try:
        publishers = await asyncio.gather(*(begin(number) for number in range(load.sessions)))
        beat = (await asyncio.to_thread(Path(spec["source"]).read_bytes))[: int(load.rate * BEAT_S)]
        await cue.ready()
        end_s = time.monotonic() + load.spread_s + SETTLE_S + load.seconds + SETTLE_S
        late = await asyncio.gather(
            *(
                _pace(publisher, beat, load.spread_s * number / load.sessions, end_s)
                for number, publisher in enumerate(publishers)
            )
        )
        finished_s = time.time()
        await asyncio.gather(*(publisher.finish() for publisher in publishers))
        await asyncio.gather(*(publisher.close() for publisher in publishers))
        return {"late_s": max(late), "finished_s": finished_s}
    finally:
        await jet.close()


async def _pace(publisher: Publisher, beat: bytes, after_s: float, end_s: float) -> float:
    """Send a beat, or a tick, whenever it is due; how late the latest was."""
    due_s, late_s = time.monotonic() + after_s, 0.0
    while due_s < end_s:
        await asyncio.sleep(due_s - time.monotonic())
        if beat:
            await publisher.send(beat)
        else:
            await publisher.tick()
        # what the stream's window held back counts as late, too
        late_s = max(late_s, time.monotonic() - due_s)
        due_s += BEAT_S if beat else TICK_S
    return late_s


async def _waits(up: Running, finished_s: float) -> dict[str, Any]:
    """How long chunks waited, in milliseconds, and whether all are stored."""
    end_s = time.monotonic() + DRAIN_S
    while True:
        closed, stored, ended = await _times(up.jet)
        missing = len(closed.keys() - stored.keys())
        if (not missing and ended) or time.monotonic() > end_s:
            break
        await asyncio.sleep(0.5)
    waits = sorted(
        stored[chunk] - at for chunk, (at, by) in closed.items() if chunk in stored and by != "final"
    )
    return {
        "chunks": len(closed),
        "missing": missing,
        "drained_s": max(stored.values(), default=finished_s) - finished_s,
        "dead": (await up.jet.info(subjects.DEAD)).messages,
        "wait_ms": {
            "p50": 1000 * quantile(waits, 0.5),
            "p99": 1000 * quantile(waits, 0.99),
            "max": 1000 * quantile(waits, 1),
        },
    }


Chunk = tuple[bytes, int]


async def _times(jet: Jet) -> tuple[dict[Chunk, tuple[float, str]], dict[Chunk, float], bool]:
    """When each chunk was closed and by what; when it was stored; whether every session has ended."""
    closed: dict[Chunk, tuple[float, str]] = {}
    stored: dict[Chunk, float] = {}
    open_sessions: set[str] = set()
    async for message in jet.read_all(subjects.CHUNKS, "lucid.chunk.recorded.*.*"):
        event, at_s = read_event(message.data), message.stream_time_ns / 1e9
        session = subjects.session_of(message.subject)
        if isinstance(event, Recorded):
            open_sessions.add(session)
            closed[event.uid, event.index] = at_s, event.closed_by
        else:
            open_sessions.discard(session)
    async for message in jet.read_all(subjects.CHUNKS, "lucid.chunk.stored.*.*"):
        event = read_event(message.data)
        if isinstance(event, Stored):
            stored.setdefault((event.uid, event.index), message.stream_time_ns / 1e9)
    return closed, stored, not open_sessions


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value that so large a share does not exceed; 0 of nothing."""
    return ordered[max(0, min(len(ordered) - 1, round(share * len(ordered)) - 1))] if ordered else 0.0
