"""A recording goes on while worker, conductor and server are killed, and is sealed like a calm one."""

import asyncio
import hashlib
import os
import random
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from schemas import subjects
from schemas.events.session import SessionSettings
from schemas.format.fragment import Kind
from streams.event_store.recordings import Recordings
from tests.support.pipeline.kills import Kill, Progress, answered, kill
from tests.support.pipeline.prepared import Outcome, Prepared, disturbed, outcome
from tests.support.pipeline.processes import outbox, processes, quick_restarts

BLOCK, BLOCKS = 475_000, 422
SETTINGS = SessionSettings(chunk_bytes=4 * BLOCK)
"""200 MB in 106 chunks."""
SCHEDULE = ("worker",) * 8 + ("nats",) * 7 + ("conductor",) * 5
WHILE_SEALING = ("conductor", "worker", "conductor")
LEAST_KILLS = 20
SESSIONS, WORKER_KILLS, SPAN_S = 20, 3, 8.0
"""Of the fragments that wait: the sessions are sent during SPAN_S, and their worker dies in it."""
SEED = int(os.environ.get("KILL_SEED", "0")) or time.time_ns() % 1_000_000


@dataclass
class Gate:
    """How many fragments may be sent by now: the recording must not be over before the kills are."""

    open_to: int
    moved: asyncio.Event

    def open(self, to: int) -> None:
        self.open_to = to
        self.moved.set()

    async def passed(self, number: int) -> None:
        while number >= self.open_to:
            self.moved.clear()
            await self.moved.wait()


async def send(progress: Progress, gate: Gate) -> None:
    """What a publisher does: a window of fragments under way, each sent again until it is acknowledged."""
    prepared, box = progress.prepared, outbox(progress.system, progress.prepared)

    async def count() -> None:
        while True:
            progress.acked = box.acknowledged
            await asyncio.sleep(0.002)

    counting = asyncio.create_task(count())
    try:
        for number, (kind, whole) in enumerate(zip(prepared.kinds, prepared.fragments, strict=True)):
            await gate.passed(number)
            if kind is Kind.FINAL:
                await box.drain()
            await box.send(whole, {}, barrier=kind in (Kind.PART, Kind.FINAL))
        await box.drain()
        progress.acked = box.acknowledged
    finally:
        counting.cancel()
        await box.close()


async def strike_all(progress: Progress, gate: Gate, chooser: random.Random) -> list[Kill]:
    """Kill one after the other, each while fragments are under way and its victim works."""
    victims = list(SCHEDULE)
    chooser.shuffle(victims)
    kills: list[Kill] = []
    step = len(progress.prepared.fragments) // (len(victims) + 3)
    acked = recorded = stored = -1
    for number, victim in enumerate(victims, 1):
        gate.open((number + 2) * step)
        target = (number - 1) * step + chooser.randint(1, step)
        await progress.until_acked(target)
        # The one that lives now has worked since it was started.
        if victim == "worker":
            done, before = chooser.choice(((progress.recorded, recorded), (progress.stored, stored)))
            await progress.until_longer(done, before)
        elif victim == "nats":
            await progress.until_acked(acked + 1)
        else:
            await answered(progress.system)
        await asyncio.sleep(chooser.choice((0, 0.02, 0.3)) * chooser.random())
        kills.append(await kill(progress, victim))
        if victim == "worker":
            recorded, stored = len(progress.recorded), len(progress.stored)
        elif victim == "nats":
            acked = progress.acked
    gate.open(len(progress.prepared.fragments))
    return kills


async def strike_while_sealing(progress: Progress, chooser: random.Random) -> list[Kill]:
    kills: list[Kill] = []
    await progress.until(lambda: progress.ended)
    for victim in WHILE_SEALING:
        await asyncio.sleep(chooser.uniform(0, 0.1))
        kills.append(await kill(progress, victim))
    return kills


@pytest.fixture(scope="module")
def long_recording() -> tuple[Prepared, Outcome]:
    prepared = Prepared("long-01", 1, [("data", BLOCK)] * BLOCKS, SETTINGS)
    return prepared, outcome(prepared)


async def calm_root(path: Path, prepared: Prepared) -> str:
    async with processes(path) as system:
        await system.begin(prepared)
        progress, gate = Progress(system, prepared), Gate(len(prepared.fragments), asyncio.Event())
        await send(progress, gate)
        root: str = (await system.sealed(prepared.session))["seal"]["root"]
        return root


async def test_kills_at_any_moment_change_neither_bytes_nor_root(
    tmp_path: Path, long_recording: tuple[Prepared, Outcome], shards: int
) -> None:
    """Breaks: a machine that fails in the middle of a recording leaves a hole, a double, or another root."""
    prepared, expected = long_recording
    assert len(expected.borders) >= 100
    root = await calm_root(tmp_path / "calm", prepared)
    print(f"KILL_SEED={SEED}")
    chooser = random.Random(SEED)
    with quick_restarts():
        async with processes(tmp_path / "struck") as system:
            assert (await Recordings.open(system.jet)).shards == shards
            await system.begin(prepared)
            progress, gate = Progress(system, prepared), Gate(0, asyncio.Event())
            following = asyncio.create_task(progress.follow())
            sending = asyncio.create_task(send(progress, gate))
            try:
                kills = await strike_all(progress, gate, chooser)
                await sending
                kills += await strike_while_sealing(progress, chooser)
                await check(progress, expected, root, tmp_path)
            finally:
                for task in (following, sending):
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task
    report(progress, kills)
    mid_flight = [one for one in kills if one.at_ns < progress.sealed_ns]
    assert len(mid_flight) >= LEAST_KILLS, f"{len(mid_flight)} kills struck, seed {SEED}"


async def test_a_worker_that_dies_with_fragments_out_of_order_loses_none(tmp_path: Path) -> None:
    """Breaks: what waited for an earlier fragment when the power failed is called lost, and is a hole."""
    chooser = random.Random(SEED)
    sessions = [Prepared(f"early-{n:02}", n, [("data", 20_000)] * 60) for n in range(1, SESSIONS + 1)]
    expected = [(prepared, outcome(prepared)) for prepared in sessions]
    with quick_restarts():
        async with processes(tmp_path) as system:
            await system.begin_all(sessions)
            progress = Progress(system, sessions[0])

            async def send_slowly(prepared: Prepared) -> None:
                for number in disturbed(prepared, chooser, delays=0.6):
                    await system.patiently(prepared.subject, prepared.fragments[number])
                    await asyncio.sleep(SPAN_S / len(prepared.fragments))

            sending = [asyncio.create_task(send_slowly(prepared)) for prepared in sessions]
            for _ in range(WORKER_KILLS):
                await asyncio.sleep(SPAN_S / (WORKER_KILLS + 1))
                await kill(progress, "worker")
            assert not all(task.done() for task in sending)
            await asyncio.gather(*sending)
            await system.check_all(expected)


async def check(progress: Progress, expected: Outcome, root: str, path: Path) -> None:
    """Nothing lost, nothing doubled, and the program itself says so."""
    system, prepared = progress.system, progress.prepared
    shown = await system.sealed(prepared.session, patience_s=90)
    assert shown["seal"]["root"] == root == expected.root.hex()
    await system.check(prepared, expected)
    await progress.until(lambda: progress.sealed_ns > 0)
    assert progress.recorded == list(range(len(expected.borders)))
    assert sorted(set(progress.stored)) == progress.recorded
    assert progress.fragments == len(prepared.fragments)
    assert [m async for m in system.jet.read_all(subjects.DEAD, "lucid.dead.>")] == []
    await answered(system)
    code, said = await system.lucid("verify", prepared.session, "--open")
    assert code == 0, said
    out = path / "exported"
    code, said = await system.lucid("export", prepared.session, "--out", str(out))
    assert code == 0, said
    assert out.stat().st_size == expected.plain
    with out.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == expected.sha256
    out.unlink()


def report(progress: Progress, kills: list[Kill]) -> None:
    sealed = progress.sealed_ns / 1e9
    span = sealed - kills[0].at_ns / 1e9
    doubled = len(progress.stored) - len(set(progress.stored))
    print(f"{len(kills)} kills in {span:.1f} s, {doubled} `stored` said twice")
