"""Plays a load, as actors: many sessions at once, each fed at its own pace, or idle.

1. Each session gets a beat a second, as a capture gives movie fragments. Bytes alone close its chunks: the
   longest time of a chunk is set aside, as it would cut every chunk of a slow session at the same age.
2. Sessions begin spread over the time that a chunk takes to fill, as independent sessions would.
3. A chunk of 10 MiB takes 70 s to fill at 1.2 Mbit/s. Nobody waits for that. A warm-up of about 16 s has the
   pace of the whole load, but feeds only the sessions whose first chunk closes in the measured time. So as
   many whole chunks close a second as in a system that has run for hours.
4. One process plays at most PER_PROCESS sessions. It must not be the limit.
5. A load that the system does not take is given up: its unacknowledged bytes would fill the memory.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from schemas.format.fragment import WINDOW
from schemas.ports import Jet
from streams.bench.actors import Actor, Cue, JsonObject
from streams.bench.contender import Task
from streams.bench.pipeline import Running
from streams.host.fragment_message import fragment_bytes
from streams.host.publisher import TICK_S, Publisher
from streams.host.session_start import start_session
from streams.roles.drivers import Installation, connected, prepare_memory

SMALL_CHUNK_BYTES = 1 << 20
"""Unless chunks of another size are asked for: each session closes one every 6 s at 1.2 Mbit/s."""
BEAT_S = 1.0
"""A capture gives one movie fragment a second."""
SPREAD_MOST_S = 8.0
"""Sessions whose chunks take longer to fill begin in the warm-up."""
SETTLE_S = 2.0
"""Before and after the measured time: no start and no end of a session falls into it."""
STARTS_AT_ONCE = 8
"""As many as the conductor decides at once."""
PER_PROCESS = 1000
"""Sessions of one process; that many take about 40 % of a core."""
BEHIND_S = 5.0
"""A load is given up when a session waits so long for an acknowledgement, or is so late."""
NO_LIMIT_S = 86_400
SILENT_MOST_S = 40.0
"""The conductor checks hosts that are silent for longer."""


@dataclass(frozen=True, slots=True)
class Load:
    """The load on the system. rate: bytes a second of each session; 0: idle, ticks only."""

    sessions: int
    seconds: float
    rate: int
    one_host: bool = False
    """One host has all sessions, as a machine with many desktops does."""
    chunk_bytes: int = SMALL_CHUNK_BYTES

    @property
    def beat_bytes(self) -> int:
        return int(self.rate * BEAT_S)

    @property
    def fill_s(self) -> float:
        """The time in which a session fills a chunk. A fragment is never split over two chunks."""
        return max(1, self.chunk_bytes // self.beat_bytes) * BEAT_S

    @property
    def fragments_per_s(self) -> float:
        """Fragments of all sessions."""
        return self.sessions * math.ceil(self.beat_bytes / fragment_bytes(self.chunk_bytes)) / BEAT_S

    @property
    def spread_s(self) -> float:
        """The sessions' first beats, or ticks, are spread over this time."""
        return min(self.fill_s, SPREAD_MOST_S) if self.rate else min(TICK_S, self.seconds)

    @property
    def play_s(self) -> float:
        """The time between the end of the warm-up and the end of the sessions."""
        return self.spread_s + SETTLE_S + self.seconds + SETTLE_S

    @property
    def warm_s(self) -> float:
        """The warm-up at the pace of the whole load."""
        return sum(map(self.beats_before, range(self.sessions))) / self.sessions * BEAT_S

    @property
    def open_s(self) -> float:
        """The seconds of load in chunks that are open when the sessions end, and are stored after that."""
        return min(self.fill_s / 2, self.play_s) if self.rate else 0.0

    @property
    def silent_s(self) -> float:
        """How long idle sessions are measured without ticks."""
        return 0.0 if self.rate else min(self.seconds, SILENT_MOST_S)

    def beats_before(self, number: int) -> int:
        """Beats of one session in the warm-up: first chunks then close evenly, as later ones do."""
        if not self.rate or self.fill_s <= SPREAD_MOST_S:
            return 0
        share = number / self.sessions
        if self.spread_s + share * self.fill_s > self.play_s:
            return 0  # it closes no chunk before the end
        return int((self.fill_s - self.spread_s) * (1 - share) / BEAT_S)


def bench_host(number: int) -> str:
    return f"bench-host-{number:04}"


def bench_session(number: int) -> str:
    return f"bench-{number:04}"


@asynccontextmanager
async def publishers(task: Task, up: Running, load: Load) -> AsyncIterator[dict[str, Actor]]:
    """The processes that record all sessions of the load, by name; each waits for its `go`."""
    processes = math.ceil(load.sessions / PER_PROCESS)
    found: dict[str, Actor] = {}
    async with AsyncExitStack() as stack:
        for number in range(processes):
            spec = {
                "source": str(task.source.path),
                "url": up.url,
                "load": asdict(load),
                "numbers": [number, processes],
            }
            name = "publisher" if processes == 1 else f"publisher {number + 1}"
            log = task.folder / f"publisher-{number}.log"
            found[name] = await stack.enter_async_context(Actor(play, spec, log, up.environment))
        yield found


async def play(cue: Cue, spec: JsonObject) -> JsonObject:
    """Actor: start sessions, feed each at its pace, end them. spec: source, url, load, numbers.

    numbers: the first session of this process, and the step to its next one.
    """
    prepare_memory()  # as a recording host does
    load = Load(**spec["load"])
    first, step = spec["numbers"]
    source = await asyncio.to_thread(Path(spec["source"]).read_bytes)
    beat = (source * math.ceil(load.beat_bytes / len(source)))[: load.beat_bytes]
    async with connected(spec["url"], "lucid-publisher") as jet:
        started = await _started(jet, load, range(first, load.sessions, step))
        await cue.ready()
        lateness = await _fed(started, load, beat)
        if load.silent_s:
            await asyncio.sleep(3 * SETTLE_S + load.silent_s)
        finished_s = time.time()
        if not lateness.gave_up:
            await asyncio.gather(*(publisher.finish() for publisher in started.values()))
        await asyncio.gather(*(publisher.close() for publisher in started.values()))
        return {"late_s": lateness.latest_s, "gave_up": lateness.gave_up, "finished_s": finished_s}


async def _started(jet: Jet, load: Load, numbers: range) -> dict[int, Publisher]:
    here, turn = Installation.here(), asyncio.Semaphore(STARTS_AT_ONCE)
    bounds = {"chunk_bytes": load.chunk_bytes, "chunk_max_seconds": NO_LIMIT_S}
    settings = here.settings.session().model_copy(update=bounds)

    async def begin(number: int) -> Publisher:
        async with turn:
            host, name = bench_host(0 if load.one_host else number), bench_session(number)
            grant = await start_session(jet, here.identity, host, name, settings)
            publisher = Publisher(jet, grant)
            await publisher.begin_part("opaque", "start")
            return publisher

    begun = await asyncio.gather(*(begin(number) for number in numbers))
    return dict(zip(numbers, begun, strict=True))


@dataclass(slots=True)
class _Lateness:
    """How late the latest beat was. allowed: unacknowledged fragments of one session."""

    allowed: int
    latest_s: float = 0.0

    @property
    def gave_up(self) -> bool:
        return self.latest_s >= BEHIND_S

    def note(self, publisher: Publisher, due_s: float) -> None:
        """After a beat. The time in which the stream's window was full counts as late, too."""
        self.latest_s = max(self.latest_s, time.monotonic() - due_s)
        progress = publisher.progress
        if progress.fragments - progress.acknowledged > self.allowed:
            self.latest_s = max(self.latest_s, BEHIND_S)


async def _fed(started: Mapping[int, Publisher], load: Load, beat: bytes) -> _Lateness:
    """Warm up, then play."""
    allowed = int(BEHIND_S * load.fragments_per_s / load.sessions) if load.rate else WINDOW
    lateness, began_s = _Lateness(allowed), time.monotonic()
    await _warm_up(started, load, beat, lateness)
    warm_s = began_s + load.warm_s
    gap_s, end_s = load.spread_s / load.sessions, warm_s + load.play_s
    paces = (
        _pace(publisher, beat, warm_s + number * gap_s, end_s, lateness)
        for number, publisher in started.items()
    )
    await asyncio.gather(*paces)
    return lateness


async def _warm_up(started: Mapping[int, Publisher], load: Load, beat: bytes, lateness: _Lateness) -> None:
    """Feed the sessions whose first chunk closes soon: those that need most beats begin first."""
    wanted = {number: load.beats_before(number) for number in started}
    most, beats = max(wanted.values()), sum(wanted.values())
    due_s = time.monotonic()
    for still in range(most, 0, -1):
        for number in (number for number, needed in wanted.items() if needed >= still):
            await asyncio.sleep(due_s - time.monotonic())
            await started[number].send(beat)
            lateness.note(started[number], due_s)
            if lateness.gave_up:
                return
            due_s += load.warm_s / beats


async def _pace(publisher: Publisher, beat: bytes, due_s: float, end_s: float, lateness: _Lateness) -> None:
    """Send a beat, or a tick, whenever it is due."""
    while due_s < end_s and not lateness.gave_up:
        await asyncio.sleep(due_s - time.monotonic())
        if beat:
            await publisher.send(beat)
        else:
            await publisher.tick()
        lateness.note(publisher, due_s)
        due_s += BEAT_S if beat else TICK_S
