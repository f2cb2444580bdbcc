"""Two hundred sessions at once, each with doubled, delayed and reordered fragments, through one worker."""

import asyncio
import random
from collections import Counter
from pathlib import Path

from schemas import subjects
from schemas.format.fragment import parse
from streams.event_store.recordings import Recordings
from tests.support.pipeline.prepared import Prepared, Step, disturbed, outcome
from tests.support.pipeline.processes import Processes, processes

SESSIONS = 200
WRITERS = 20
"""Sessions that send at the same moment; the stream holds their fragments in turn."""


def steps(chooser: random.Random) -> list[Step]:
    """A recording of one to four chunks, every session another."""
    kinds = ("data",) * 8 + ("key", "key", "tick", "pause", "wait", "part")
    made: list[Step] = []
    for _ in range(chooser.randint(3, 9)):
        kind = chooser.choice(kinds)
        made.append((kind, chooser.randint(1, 70) if kind == "wait" else chooser.randint(0, 120_000)))
    return made


async def test_every_border_of_200_interleaved_sessions_is_the_offline_one(tmp_path: Path) -> None:
    """Breaks: under load a chunk ends elsewhere, or one session's fragment lands in another's chunk."""
    chooser = random.Random(11)
    sessions = [Prepared(f"many-{n:03}", n, steps(chooser)) for n in range(1, SESSIONS + 1)]
    expected = [outcome(prepared) for prepared in sessions]
    orders = [disturbed(prepared, chooser) for prepared in sessions]
    assert sum(len(one.borders) for one in expected) > 2 * SESSIONS
    async with processes(tmp_path) as system:
        await system.begin_all(sessions)
        await send_interleaved(system, list(zip(sessions, orders, strict=True)), chooser)
        await check_stream(system, sessions, orders)
        await system.check_all(list(zip(sessions, expected, strict=True)))


async def send_interleaved(
    system: Processes, work: list[tuple[Prepared, list[int]]], chooser: random.Random
) -> None:
    """Every session in its own order, and between two of its fragments any number of others'."""
    left = [(prepared, iter(order)) for prepared, order in work]

    async def write() -> None:
        while left:
            prepared, order = left.pop(chooser.randrange(len(left)))
            for number in order:
                await system.patiently(prepared.subject, prepared.fragments[number])
                if chooser.random() < 0.5:  # on with another one
                    left.append((prepared, order))
                    break

    async with asyncio.TaskGroup() as tasks:
        for _ in range(WRITERS):
            tasks.create_task(write())


async def check_stream(system: Processes, sessions: list[Prepared], orders: list[list[int]]) -> None:
    """The test's own claim: the stream is interleaved, doubled and out of order."""
    wanted = {prepared.session: order for prepared, order in zip(sessions, orders, strict=True)}
    held: dict[str, list[int]] = {prepared.session: [] for prepared in sessions}
    changes, before = 0, ""
    for stream in (await Recordings.open(system.jet)).streams:
        async for message in system.jet.read_all(stream, subjects.ALL_RECORDINGS):
            session = subjects.session_of(message.subject)
            held[session].append(parse(message.data).header.seq)
            changes, before = changes + (session != before), session
    assert held == wanted
    assert changes > 5 * SESSIONS
    assert sum(order != sorted(order) for order in orders) > SESSIONS / 2
    assert sum(max(Counter(order).values()) > 1 for order in orders) > SESSIONS / 2
