"""Measures many sessions at once, each at its own pace or idle: CPU, memory, and how long a chunk waits.

1. Sessions begin spread over the time that a chunk takes to fill, as independent sessions would.
2. CPU is measured only while all sessions run.
3. Idle sessions are measured twice: with the ticks of their hosts, each made durable, and without.
4. A chunk's wait is the time between its `recorded` and its first `stored`; a step's wait, the time between
   its input event and its own. Times are the server's.
5. Chunks that their session's end closed are left out: only here do all sessions end at once.
"""

import asyncio
import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from schemas import subjects
from schemas.events.chunk import ChunkEvent, Recorded
from schemas.events.upcast import read_chunk_event
from schemas.ports import Jet
from schemas.ports.messages import Message
from streams.bench.actors import Actor, Cue, JsonObject
from streams.bench.contender import Task
from streams.bench.meter import Meter
from streams.bench.pipeline import Running, system
from streams.host.publisher import TICK_S, Publisher
from streams.host.session_start import start_session
from streams.roles.drivers import Installation, connected

CHUNK_BYTES = 1 << 20
BEAT_S = 1.0
"""A capture gives one movie fragment a second."""
STARTS_AT_ONCE = 8
LATE_S = 1.0
"""A publisher that is later does not keep up."""
LONGEST_MS = 250
"""A system does not keep up if one chunk in a hundred waits longer between its close and its store."""
DRAIN_S = 10.0
"""All sessions end at once; their last chunks are stored within this time."""
SETTLE_S = 2.0
SILENT_MOST_S = 40.0
"""The conductor checks hosts that are silent for longer."""
STEPS = (
    subjects.RECORDED,
    subjects.CHUNKED,
    subjects.COMPRESSED,
    subjects.ENCRYPTED,
    subjects.PROVEN,
    subjects.STORED,
)
Chunk = tuple[bytes, int]
"""(uid, index)."""


@dataclass(frozen=True, slots=True)
class Load:
    """The load on the system. rate: bytes a second of each session; 0: idle, ticks only."""

    sessions: int
    seconds: float
    rate: int
    one_host: bool = False
    """One host has all sessions, as a machine with many desktops does."""
    chunk_bytes: int = CHUNK_BYTES

    @property
    def spread_s(self) -> float:
        """The sessions' first beats are spread over this time."""
        if not self.rate:
            return min(TICK_S, self.seconds)
        beat_bytes = self.rate * BEAT_S
        return max(1, CHUNK_BYTES // beat_bytes) * BEAT_S  # a fragment is never split over two chunks

    @property
    def silent_s(self) -> float:
        """How long idle sessions are measured without ticks."""
        return 0.0 if self.rate else min(self.seconds, SILENT_MOST_S)


def publishers(task: Task, up: Running, load: Load, log: str = "log") -> Actor:
    """The process that records all sessions of the load."""
    spec = {"source": str(task.source.path), "url": up.url, "load": asdict(load)}
    return Actor(play, spec, task.folder / log, up.environment)


async def measure(task: Task, load: Load) -> JsonObject:
    """The figures of the system under this load."""
    async with system(task) as up, publishers(task, up, load) as publisher:
        publisher.go()
        pids = {**up.pids, "publisher": publisher.pid}
        await asyncio.sleep(load.spread_s + SETTLE_S)
        figures: JsonObject = {
            "sessions": load.sessions,
            "hosts": 1 if load.one_host else load.sessions,
            "rate_bits": load.rate * 8,
            **await _used(pids, load.seconds),
        }
        if load.silent_s:
            await asyncio.sleep(2 * SETTLE_S)
            figures["silent"] = await _used(pids, load.silent_s)
        played = await publisher.done()
        figures["late_s"] = played["late_s"]
        if load.rate:
            figures |= await _waits(up, played["finished_s"])
            figures["keeps_up"] = keeps_up(figures)
        return figures


async def _used(pids: dict[str, int], seconds: float) -> JsonObject:
    """CPU and memory of the processes during so many seconds."""
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


def keeps_up(figures: JsonObject) -> bool:
    """Whether nothing is lost, and nothing piles up: at the host, between stages, at the end."""
    whole = not (figures["missing"] or figures["unended"] or figures["dead"])
    return (
        whole
        and figures["late_s"] < LATE_S
        and figures["wait_ms"]["p99"] < LONGEST_MS
        and figures["drained_s"] < DRAIN_S
    )


def bench_host(number: int) -> str:
    return f"bench-host-{number:04}"


def bench_session(number: int) -> str:
    return f"bench-{number:04}"


async def play(cue: Cue, spec: JsonObject) -> JsonObject:
    """Actor: start the sessions, feed each at its pace, end them. spec: source, url, load."""
    async with connected(spec["url"], "lucid-publisher") as jet:
        return await _play(jet, cue, Load(**spec["load"]), spec["source"])


async def _play(jet: Jet, cue: Cue, load: Load, source: str) -> JsonObject:
    here, turn = Installation.here(), asyncio.Semaphore(STARTS_AT_ONCE)
    settings = here.settings.session().model_copy(update={"chunk_bytes": load.chunk_bytes})

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
    """Send a beat, or a tick, whenever it is due; return how late the latest was, in seconds."""
    due_s, late_s = time.monotonic() + after_s, 0.0
    while due_s < end_s:
        await asyncio.sleep(due_s - time.monotonic())
        if beat:
            await publisher.send(beat)
        else:
            await publisher.tick()
        # the time in which the stream's window was full counts as late, too
        late_s = max(late_s, time.monotonic() - due_s)
        due_s += BEAT_S if beat else TICK_S
    return late_s


async def _waits(up: Running, finished_s: float) -> JsonObject:
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


@dataclass(slots=True)
class Times:
    """When each event of each chunk was first stored, by step; seconds since 1970."""

    at: dict[str, dict[Chunk, float]] = field(default_factory=lambda: {step: {} for step in STEPS})
    at_end: set[Chunk] = field(default_factory=set)
    """Chunks that the end of their session closed."""
    open_sessions: set[str] = field(default_factory=set)
    """Sessions that recorded a chunk, and no end."""

    def take(self, message: Message) -> None:
        """Fold one message of CHUNKS."""
        event, session = read_chunk_event(message.data), subjects.session_of(message.subject)
        if not isinstance(event, ChunkEvent):
            self.open_sessions.discard(session)
            return
        chunk = event.uid, event.index
        if isinstance(event, Recorded):
            self.open_sessions.add(session)
            if event.closed_by in ("final", "end"):
                self.at_end.add(chunk)
        step = subjects.step_of(message.subject)
        if step in self.at:
            self.at[step].setdefault(chunk, message.stream_time_ns / 1e9)

    @property
    def recorded(self) -> int:
        return len(self.at[subjects.RECORDED])

    @property
    def missing(self) -> int:
        """Chunks that were recorded and not stored."""
        return len(self.at[subjects.RECORDED].keys() - self.at[subjects.STORED].keys())

    @property
    def last_s(self) -> float:
        """When the last chunk was stored."""
        return max(self.at[subjects.STORED].values(), default=0.0)

    def waits_ms(self) -> dict[str, float]:
        return _quantiles_ms(self._between(subjects.RECORDED, subjects.STORED))

    def steps_ms(self) -> dict[str, dict[str, float]]:
        """The same by step: where a chunk waits."""
        pairs = itertools.pairwise(STEPS)
        return {step: _quantiles_ms(self._between(before, step)) for before, step in pairs}

    def _between(self, before: str, after: str) -> Iterable[float]:
        begun: Mapping[Chunk, float] = self.at[before]
        for chunk, at_s in self.at[after].items():
            if chunk in begun and chunk not in self.at_end:
                yield at_s - begun[chunk]


def _quantiles_ms(waits_s: Iterable[float]) -> dict[str, float]:
    ordered = sorted(waits_s)
    shares = (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    return {name: 1000 * quantile(ordered, share) for name, share in shares}


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed; 0 of none."""
    return ordered[max(0, min(len(ordered) - 1, round(share * len(ordered)) - 1))] if ordered else 0.0
