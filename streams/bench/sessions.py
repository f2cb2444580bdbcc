"""Owns many sessions at once: each at its own pace, or idle; how long a chunk waits, and what that costs.

1. Sessions begin spread over the time that a chunk takes to fill, as independent ones would.
2. CPU is measured only while all sessions run.
3. Idle ones are measured twice: with the ticks of their hosts, each of which is made durable, and without.
"""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas import subjects
from schemas.ports import Jet
from streams.bench.actors import Actor, Cue, Said
from streams.bench.contender import Task
from streams.bench.meter import Meter
from streams.bench.pipeline import Running, system
from streams.bench.waits import Times
from streams.host.publisher import TICK_S, Publisher
from streams.host.session_start import start_session
from streams.roles.drivers import Installation, connected

CHUNK_BYTES = 1 << 20
BEAT_S = 1.0
"""A capture gives one movie fragment a second."""
STARTS_AT_ONCE = 8
LATE_S = 1.0
"""A publisher that is so late does not keep up."""
LONGEST_MS = 250
"""Nor does a system where one chunk in a hundred waits so long, from its close until it is stored."""
DRAIN_S = 10.0
"""All sessions end at once; by then their last chunks are stored."""
SETTLE_S = 2.0
SILENT_MOST_S = 40.0
"""Hosts that say nothing for longer are looked for."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of the system. rate: bytes a second of each session; 0: idle, ticks only."""

    sessions: int
    seconds: float
    rate: int
    one_host: bool = False
    """All of them are of one host, as those of a machine with many desktops."""

    @property
    def spread_s(self) -> float:
        """Over which the sessions' first beats are spread."""
        if not self.rate:
            return min(TICK_S, self.seconds)
        beat_bytes = self.rate * BEAT_S
        return max(1, CHUNK_BYTES // beat_bytes) * BEAT_S  # a fragment is never split over two chunks

    @property
    def silent_s(self) -> float:
        """How long idle sessions are measured without ticks, too."""
        return 0.0 if self.rate else min(self.seconds, SILENT_MOST_S)


async def measure(task: Task, load: Load) -> dict[str, Any]:
    """What the system does under this load, as JSON tells it."""
    async with system(task) as up:
        spec = {
            "source": str(task.source.path),
            "url": up.url,
            "sessions": load.sessions,
            "seconds": load.seconds,
            "rate": load.rate,
            "one_host": load.one_host,
        }
        async with Actor("sessions:play", spec, task.folder / "log", up.environment) as publisher:
            publisher.go()
            pids = {**up.pids, "publisher": publisher.pid}
            await asyncio.sleep(load.spread_s + SETTLE_S)
            said: dict[str, Any] = {
                "sessions": load.sessions,
                "hosts": 1 if load.one_host else load.sessions,
                "rate_bits": load.rate * 8,
                **await _used(pids, load.seconds),
            }
            if load.silent_s:
                await asyncio.sleep(2 * SETTLE_S)
                said["silent"] = await _used(pids, load.silent_s)
            played = await publisher.done()
        said["late_s"] = played["late_s"]
        if load.rate:
            said |= await _waits(up, played["finished_s"])
            said["keeps_up"] = keeps_up(said)
        return said


async def _used(pids: dict[str, int], seconds: float) -> dict[str, Any]:
    """What the processes take during so many seconds."""
    async with Meter(pids) as meter:
        began_s = time.monotonic()
        await asyncio.sleep(seconds)
        measured_s = time.monotonic() - began_s
    return {
        "seconds": measured_s,
        "others_share": meter.others,
        "processes": {
            name: {"cpu_share": used.cpu_s / measured_s, "peak_bytes": used.peak_bytes}
            for name, used in meter.used.items()
        },
    }


def keeps_up(said: dict[str, Any]) -> bool:
    """Nothing is lost, and nothing piles up: not at the host, not between stages, not at the end."""
    whole = not (said["missing"] or said["unended"] or said["dead"])
    return (
        whole
        and said["late_s"] < LATE_S
        and said["wait_ms"]["p99"] < LONGEST_MS
        and said["drained_s"] < DRAIN_S
    )


def bench_host(number: int) -> str:
    return f"bench-host-{number:04}"


def bench_session(number: int) -> str:
    return f"bench-{number:04}"


async def play(cue: Cue, spec: Said) -> Said:
    """Actor: start the sessions, feed each at its pace, end them. spec: a Load, source, url, chunk_bytes."""
    async with connected(spec["url"], "lucid-publisher") as jet:
        load = Load(spec["sessions"], spec["seconds"], spec["rate"], spec.get("one_host", False))
        return await _play(jet, cue, load, spec["source"], spec.get("chunk_bytes", CHUNK_BYTES))


async def _play(jet: Jet, cue: Cue, load: Load, source: str, chunk_bytes: int) -> Said:
    here, turn = Installation.here(), asyncio.Semaphore(STARTS_AT_ONCE)
    settings = here.settings.session().model_copy(update={"chunk_bytes": chunk_bytes})

    async def begin(number: int) -> Publisher:
        async with turn:
            host, name = bench_host(0 if load.one_host else number), bench_session(number)
            grant = await start_session(jet, here.identity, host, name, settings)
            publisher = Publisher(jet, grant)
            await publisher.begin_part("opaque", "start")
            return publisher

    publishers = await asyncio.gather(*(begin(number) for number in range(load.sessions)))
    beat = (await asyncio.to_thread(Path(source).read_bytes))[: int(load.rate * BEAT_S)]
    await cue.ready()
    end_s = time.monotonic() + load.spread_s + SETTLE_S + load.seconds + SETTLE_S
    late = await asyncio.gather(
        *(
            _pace(publisher, beat, load.spread_s * number / load.sessions, end_s)
            for number, publisher in enumerate(publishers)
        )
    )
    if load.silent_s:
        await asyncio.sleep(3 * SETTLE_S + load.silent_s)
    finished_s = time.time()
    await asyncio.gather(*(publisher.finish() for publisher in publishers))
    await asyncio.gather(*(publisher.close() for publisher in publishers))
    return {"late_s": max(late), "finished_s": finished_s}


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
    await _quiet(up.jet)
    times = Times()
    async for message in up.jet.read_all(subjects.CHUNKS, subjects.ALL_CHUNKS):
        times.take(message)
    return {
        "chunks": times.recorded,
        "missing": times.missing,
        "unended": len(times.open_sessions),
        "drained_s": times.last_s - finished_s,
        "dead": (await up.jet.info(subjects.DEAD)).messages,
        "wait_ms": times.waits_ms(),
        "steps_ms": times.steps_ms(),
    }


async def _quiet(jet: Jet) -> None:
    """Return when no event has come for SETTLE_S."""
    last, now = -1, (await jet.info(subjects.CHUNKS)).last_seq
    while last != now:
        await asyncio.sleep(SETTLE_S)
        last, now = now, (await jet.info(subjects.CHUNKS)).last_seq
