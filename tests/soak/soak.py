"""Kills, faults and load at once: `just soak`, for 30 minutes unless SOAK_MINUTES says otherwise.

`SHARDS=16 just soak` does it over sixteen recording streams.

1. Many hosts record at once, out of order and doubled. Each session is compared with what its fragments
   always become, and most are destroyed afterwards.
2. Meanwhile processes are killed and frozen, consumers deleted, forged fragments sent.
3. It ends with figures. Anything lost, doubled, different or left over makes the exit status 1.
"""

import asyncio
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from infra.blobs.disk import DiskBlobs
from infra.jetstream import Message
from schemas import subjects
from schemas.errors import LucidError, RefusedByState, Retryable
from schemas.events.chunk import Dead
from schemas.events.session import State
from streams.control.client import call
from streams.event_store.recordings import Recordings
from streams.pipeline.stages import STAGES, consumer
from tests.support.pipeline.lifecycle_storm import storm
from tests.support.pipeline.prepared import Outcome, Prepared, Step, disturbed, outcome
from tests.support.pipeline.processes import Processes, processes, quick_restarts

MINUTES = 30.0
HOSTS = 24
"""Sessions that are recorded at once."""
PAUSE_S = 0.02
"""Between two fragments of one host: about 60 MB/s of all together would fill a disk within the half hour."""
KEPT = 0.1
"""Share of sessions that are not destroyed."""
FAULT_S = (0.5, 4.0)
FREEZE_S = (0.2, 3.0)
STORM_SESSIONS, STORM_KILLS = 100, 50
"""Of the lifecycle storm behind the soak."""
PATIENCE_S = 180.0
"""For a seal or a destruction under kills that never end."""
KINDS = ("kill",) * 6 + ("freeze", "freeze", "delete consumer", "forge")


@dataclass
class Figures:
    """What a soak has seen."""

    began_s: float = field(default_factory=time.monotonic)
    shards: int = 0
    sessions: int = 0
    destroyed: int = 0
    chunks: int = 0
    fragments: int = 0
    bytes: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    losses: int = 0
    doubles: int = 0
    failures: list[str] = field(default_factory=list)
    stored_ms: list[float] = field(default_factory=list)
    """From a chunk's `recorded` to its first `stored`, by the stream's clock."""

    @property
    def good(self) -> bool:
        return not (self.losses or self.doubles or self.failures) and self.sessions > 0

    def told(self) -> dict[str, Any]:
        seconds = time.monotonic() - self.began_s
        return {
            "minutes": round(seconds / 60, 1),
            "shards": self.shards,
            "sessions": self.sessions,
            "destroyed": self.destroyed,
            "chunks": self.chunks,
            "fragments": self.fragments,
            "megabytes": round(self.bytes / 1e6, 1),
            "megabytes_per_second": round(self.bytes / 1e6 / seconds, 2),
            "kills": dict(self.kills) | {"all": self.kills.total()},
            "faults": dict(self.faults),
            "losses": self.losses,
            "doubles": self.doubles,
            "failures": self.failures[:20],
            "stored_ms": {name: _quantile(self.stored_ms, q) for name, q in QUANTILES.items()},
        }


QUANTILES = {"p50": 0.5, "p99": 0.99, "most": 1.0}


async def soak(minutes: float, path: Path, *, hosts: int = HOSTS, seed: int = 0) -> Figures:
    """Run it, and return its figures. Everything is below `path`."""
    figures, chooser = Figures(), random.Random(seed or time.time_ns())
    with quick_restarts():
        async with processes(path, workers=2) as system:
            world = _Soak(system, figures, chooser)
            figures.shards = (await Recordings.open(system.jet)).shards
            async with background(world.measure(), world.trouble(), world.tell()) as (_, troubling, _):
                over_s = time.monotonic() + minutes * 60
                await asyncio.gather(*(world.host(number, over_s) for number in range(hosts)))
                troubling.cancel()
                await world.check_dead_letters()
    return figures


@dataclass
class _Soak:
    system: Processes
    figures: Figures
    chooser: random.Random
    numbers: int = 0

    async def host(self, number: int, over_s: float) -> None:
        """One session after the other until the time is over."""
        while time.monotonic() < over_s:
            self.numbers += 1
            prepared = await asyncio.to_thread(
                Prepared, f"soak-{number:02}-{self.numbers:06}", self.numbers, self._steps()
            )
            expected = await asyncio.to_thread(outcome, prepared)
            try:
                await self.session(prepared, expected)
            except (AssertionError, LucidError, TimeoutError) as error:
                self.figures.failures.append(f"{prepared.session}: {str(error)[:300]}")

    async def session(self, prepared: Prepared, expected: Outcome) -> None:
        await patiently(lambda: self.system.begin(prepared))
        for at in disturbed(prepared, self.chooser):
            await self.system.patiently(prepared.subject, prepared.fragments[at])
            await asyncio.sleep(PAUSE_S * self.chooser.random())
        await self.system.sealed(prepared.session, PATIENCE_S)
        await self.count(prepared, expected)
        await patiently(lambda: self.system.check(prepared, expected))
        self.figures.sessions += 1
        if self.chooser.random() > KEPT:
            await self.destroy(prepared)

    async def count(self, prepared: Prepared, expected: Outcome) -> None:
        """Losses and doubles of one sealed session; `check` says afterwards what else differs."""
        figures, uid = self.figures, prepared.uid.hex()
        borders = await patiently(lambda: self.system.borders(prepared.session))
        manifest = self.system.manifest(prepared)
        files = DiskBlobs(self.system.data.chunks).list(f"{uid}/")
        lost = len(prepared.fragments) - manifest.totals.fragments
        figures.losses += max(0, lost) + max(0, len(expected.digests) - len(files))
        figures.doubles += max(0, -lost) + max(0, len(files) - len(expected.digests))
        figures.chunks += len(borders)
        figures.fragments += manifest.totals.fragments
        figures.bytes += expected.plain

    async def destroy(self, prepared: Prepared) -> None:
        end_s = time.monotonic() + PATIENCE_S
        said = {"session": prepared.session, "cause": "soak-destroy", "reason": "soak"}
        while (shown := await self.system.show(prepared.session))["state"] != State.DESTROYED:
            assert time.monotonic() < end_s, f"not destroyed: {shown}"
            with suppress(Retryable, RefusedByState):
                await call(self.system.jet, "destroy", said, 20)
        assert shown["shredded"]
        assert DiskBlobs(self.system.data.chunks).list(f"{prepared.uid.hex()}/") == []
        self.figures.destroyed += 1

    async def trouble(self) -> None:
        """One fault after the other until cancelled; a kill comes first: the shortest soak has one."""
        for number in itertools.count():
            await asyncio.sleep(self.chooser.uniform(*FAULT_S))
            name, pid = self.chooser.choice(list(self.system.victims.items()) or [("", 0)])
            match self.chooser.choice(KINDS if number else ("kill",)):
                case "kill" if _signal(pid, signal.SIGKILL):
                    self.figures.kills[name] += 1
                case "freeze" if _signal(pid, signal.SIGSTOP):
                    self.figures.faults[f"freeze {name}"] += 1
                    try:
                        await asyncio.sleep(self.chooser.uniform(*FREEZE_S))
                    finally:
                        _signal(pid, signal.SIGCONT)
                case "delete consumer":
                    stage = self.chooser.choice(STAGES[1:])
                    with suppress(LucidError):
                        await self.system.jet.delete_consumer(subjects.CHUNKS, consumer(stage, 0, 1, 8).name)
                        self.figures.faults["delete consumer"] += 1
                case "forge":
                    await self._forge()

    async def _forge(self) -> None:
        """Fragments that nobody signed, for sessions that are being recorded."""
        with suppress(LucidError):
            recordings = await Recordings.open(self.system.jet)
            stream = self.chooser.choice(recordings.streams)
            counts = await self.system.jet.subject_counts(stream, subjects.ALL_RECORDINGS)
            for subject in self.chooser.sample(sorted(counts), min(5, len(counts))):
                await self.system.jet.publish(subject, b"LSFR" + self.chooser.randbytes(300))
                self.figures.faults["forge"] += 1

    async def measure(self) -> None:
        """How long a chunk takes from `recorded` to `stored`."""
        steps = [f"lucid.chunk.{step}.*.*" for step in (subjects.RECORDED, subjects.STORED)]
        closed: dict[tuple[str, int], int] = {}
        async for item in self.system.jet.follow(subjects.CHUNKS, steps):
            if not isinstance(item, Message) or b'"lucid.chunk.ended.' in item.data:
                continue
            said = json.loads(item.data)
            chunk = said["session"], said["index"]
            if subjects.step_of(item.subject) == subjects.RECORDED:
                closed[chunk] = item.stream_time_ns
            elif chunk in closed:
                self.figures.stored_ms.append((item.stream_time_ns - closed.pop(chunk)) / 1e6)

    async def tell(self) -> None:
        while True:
            await asyncio.sleep(60)
            print(json.dumps(self.figures.told()), file=sys.stderr, flush=True)

    async def check_dead_letters(self) -> None:
        """Only what was forged or came after the end may be refused, and only by record."""
        async for message in self.system.jet.read_all(subjects.DEAD, "lucid.dead.>"):
            dead = Dead.model_validate_json(message.data)
            if dead.stage != "record":
                self.figures.failures.append(f"{dead.session}: dead in {dead.stage}: {dead.code}")

    def _steps(self) -> list[Step]:
        chooser = self.chooser
        kinds = ("data",) * 12 + ("key", "tick", "pause", "wait", "part")
        size = chooser.choice((2_000, 60_000, 120_000))
        return [
            (kind, chooser.randint(1, 70) if kind == "wait" else chooser.randint(0, size))
            for kind in chooser.choices(kinds, k=chooser.randint(5, 80))
        ]


async def patiently(ask: Callable[[], Awaitable[Any]]) -> Any:
    """Ask again until it is answered, as a client does that gives the same cause."""
    end_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await ask()
        except Retryable:
            if time.monotonic() > end_s:
                raise
        await asyncio.sleep(0.1)


@asynccontextmanager
async def background(*services: Any) -> AsyncIterator[tuple["asyncio.Task[None]", ...]]:
    """Services that run beside; what ended one of them before is raised."""
    tasks = tuple(asyncio.create_task(service) for service in services)
    try:
        yield tasks
    finally:
        over = [task for task in tasks if task.done() and not task.cancelled()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in over:
            task.result()


def _signal(pid: int, number: int) -> bool:
    """Send it to a living child of ours; False when there is none with this number."""
    try:
        if not pid or psutil.Process(pid).ppid() != os.getpid():
            return False
        os.kill(pid, number)
    except (psutil.Error, ProcessLookupError):
        return False
    return True


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) if ordered else 0.0


def main() -> int:
    minutes = float(os.environ.get("SOAK_MINUTES") or MINUTES)
    with tempfile.TemporaryDirectory(prefix="lucid-soak-") as folder:
        figures = asyncio.run(soak(minutes, Path(folder)))
        try:
            passed = asyncio.run(storm(Path(folder) / "storm", STORM_SESSIONS, STORM_KILLS, time.time_ns()))
            figures.kills["conductor in the storm"] = STORM_KILLS
            print(f"storm: {passed.cycles.total()} pauses, {passed.repeated} requests repeated")
        except (AssertionError, TimeoutError, ExceptionGroup) as error:
            figures.failures.append(f"storm: {str(error)[:300]}")
    print(json.dumps(figures.told(), indent=2))
    return 0 if figures.good else 1


if __name__ == "__main__":
    sys.exit(main())
