"""What streams.conductor.stage_watch says of stages over a real server."""

import asyncio
import json
from typing import Any

import pytest

from handlers.lifecycle.stage_progress import Progress, Sample, observed, still_s
from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.ports import Jet
from streams.conductor.stage_watch import StageWatch
from streams.event_store import topology
from streams.pipeline.stages import STAGES
from streams.pipeline.worker import join
from tests.support.machine.waiting import PATIENCE_S

COMPRESS = next(stage for stage in STAGES if stage.verb == "compress")
NOTHING = Sample(0, ())


class Watched:
    """A watch whose clock is turned by hand."""

    def __init__(self, jet: Jet) -> None:
        self.now_s, self.recorded = 0.0, NOTHING
        self.watch = StageWatch(jet, lambda: self.recorded, 60, lambda: self.now_s)

    async def after(self, seconds: float) -> dict[str, Any]:
        """The answer after so many looks, one every 5 s."""
        for _ in range(int(seconds / 5)):
            self.now_s += 5
            await self.watch.look()
        answer: dict[str, Any] = json.loads(self.watch.answer())
        return answer

    async def sees(self, stage: str, waiting: int) -> None:
        """Look, at one time, until so many wait: the server counts a message a moment after it has it."""
        async with asyncio.timeout(PATIENCE_S):
            while self.watch.states()[stage]["waiting"] != waiting:
                await self.watch.look()

    async def stalled(self, seconds: float) -> list[str]:
        return [stage for stage, one in (await self.after(seconds)).items() if one["stalled"]]


@pytest.fixture
async def watched(server: NatsServer, jet: Jet) -> Watched:
    await topology.declare(jet, server.max_file)
    return Watched(jet)


async def test_a_stage_that_moves_nothing_while_chunks_wait_is_stalled_and_no_other(
    watched: Watched, jet: Jet
) -> None:
    """Breaks: the worker hangs in one stage, and readiness says that all is well."""
    for stage in STAGES[1:]:
        await join(jet, stage, 0, 1)
    assert await watched.stalled(120) == []
    await jet.publish(subjects.chunk(COMPRESS.reads[0], "demo"), b"{}")
    await watched.sees("compress", waiting=1)
    assert await watched.stalled(60) == []
    told = await watched.after(5)
    assert [stage for stage, one in told.items() if one["stalled"]] == ["compress"]
    assert (told["compress"]["waiting"], told["compress"]["still_s"]) == (1, 65.0)
    reader = jet.pull(subjects.CHUNKS, "compress-0-of-1", batch=1)
    message = await reader.get()
    assert await watched.stalled(5) == []
    assert await watched.stalled(70) == ["compress"]
    await reader.ack_sync(message)
    assert await watched.stalled(5) == []
    assert await watched.stalled(300) == []
    await reader.close()


async def test_a_recording_that_is_not_folded_stalls_the_stage_record(watched: Watched) -> None:
    """Breaks: fragments pile up in front of the first stage, and nothing says so."""
    watched.recorded = Sample(1, (7,))
    assert await watched.stalled(60) == []
    assert await watched.stalled(10) == ["record"]
    watched.recorded = Sample(1, (8,))
    assert await watched.stalled(5) == []


def test_nothing_is_judged_of_a_time_in_which_nobody_looked() -> None:
    """Breaks: after a conductor was stopped for an hour, every stage with work is called stalled."""
    seen = observed(Progress(Sample(1, (5,)), since_s=0, seen_s=10), Sample(1, (5,)), 3610, unseen_s=30)
    assert still_s(seen) == 0
