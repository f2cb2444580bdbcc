"""What streams.conductor.stage_watch says of stages over a real server."""

import asyncio
import json
from typing import Any

import pytest

from handlers.lifecycle.stage_progress import Progress, Sample, observed, still_s
from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.errors import Unavailable
from schemas.ports import Jet
from streams.conductor.stage_watch import StageWatch
from streams.event_store import topology
from streams.pipeline.stages import STAGES
from streams.pipeline.worker import join
from streams.roles.health import check_stages
from tests.support.machine.waiting import PATIENCE_S
from tests.support.pipeline.chunk_events import events_of

COMPRESS = next(stage for stage in STAGES if stage.verb == "compress")
CONSUMER = "compress-0-of-1"


class Watched:
    """A watch whose clock is turned by hand, and the stage `compress`, done by the test."""

    def __init__(self, jet: Jet) -> None:
        self.now_s, self.recorded = 0.0, dict[str, Sample]()
        self.sessions: list[str] = []
        self.hosts: dict[str, str] = {}
        """Of sessions; any other session has a host of its own."""
        self.jet = jet
        self.watch = self.another()
        self.reader = jet.pull(subjects.CHUNKS, CONSUMER, batch=8)

    def another(self) -> StageWatch:
        return StageWatch(self.jet, lambda: self.recorded, self.unfinished, 60, lambda: self.now_s)

    def unfinished(self) -> dict[str, str]:
        return {name: self.hosts.get(name, name) for name in {*self.sessions, *self.hosts}}

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
            while self.watch.states().get(stage, {}).get("waiting") != waiting:
                await self.watch.look()

    async def stalled(self, seconds: float) -> list[str]:
        return [stage for stage, one in (await self.after(seconds)).items() if one["stalled"]]

    async def chunked(self, session: str, index: int) -> None:
        """A chunk waits for the stage."""
        recorded, chunked, *_ = events_of(index, session=session)
        ack = await self.jet.publish(
            subjects.chunk(subjects.RECORDED, session), recorded.model_dump_json().encode()
        )
        body = chunked.model_copy(update={"recorded": ack.seq}).model_dump_json().encode()
        await self.jet.publish(subjects.chunk(subjects.CHUNKED, session), body)

    async def compress(self, *poisoned: str) -> bool:
        """Finish one message, or hand it back if its session is poisoned; return whether it is finished."""
        message = await self.reader.get()
        event = json.loads(message.data)
        if event["session"] in poisoned:
            await self.reader.nak(message, 0)
            return False
        _, _, compressed, *_ = events_of(event["index"], session=event["session"])
        body = compressed.model_copy(update={"recorded": event["recorded"]}).model_dump_json().encode()
        await self.jet.publish(subjects.chunk(subjects.COMPRESSED, event["session"]), body)
        await self.reader.ack_sync(message)
        return True


@pytest.fixture
async def watched(server: NatsServer, jet: Jet) -> Watched:
    await topology.declare(jet, server.max_file)
    for stage in STAGES[1:]:
        await join(jet, stage, 0, 1)
    return Watched(jet)


async def test_a_stage_that_finishes_nothing_while_chunks_wait_is_stalled_and_no_other(
    watched: Watched, jet: Jet
) -> None:
    """Breaks: the worker hangs in one stage, and readiness says that all is well."""
    assert await watched.stalled(120) == []
    await jet.publish(subjects.chunk(COMPRESS.reads[0], "demo"), b"{}")
    await watched.sees("compress", waiting=1)
    assert await watched.stalled(60) == []
    told = await watched.after(5)
    assert [stage for stage, one in told.items() if one["stalled"]] == ["compress"]
    assert (told["compress"]["waiting"], told["compress"]["still_s"]) == (1, 65.0)
    message = await watched.reader.get()
    assert await watched.stalled(5) == ["compress"], "a delivery finishes nothing"
    await watched.reader.ack_sync(message)
    await watched.sees("compress", waiting=0)
    assert await watched.stalled(300) == []
    await watched.reader.close()


async def test_a_stage_in_which_every_job_fails_is_stalled(watched: Watched) -> None:
    """Breaks: the disk of the store is away, each chunk is tried for ever, and readiness says: well."""
    watched.sessions = [f"s-{n}" for n in range(20)]
    for number in range(14):
        await watched.chunked(f"s-{number}", 0)
        await watched.compress(*watched.sessions)
        await watched.sees("compress", waiting=number + 1)
        told = await watched.after(5)
    assert [stage for stage, one in told.items() if one["stalled"]] == ["compress"]
    await watched.reader.close()


async def test_one_session_that_cannot_be_processed_does_not_make_its_stage_stalled(watched: Watched) -> None:
    """Breaks: a file in the way of one recording takes the whole installation out of service."""
    watched.sessions = ["bad", "good", "other"]
    await watched.chunked("bad", 0)
    await watched.compress("bad")
    for index in range(20):
        await watched.chunked("good", index)
        while not await watched.compress("bad"):
            pass
        assert "compress" not in await watched.stalled(5)
    await watched.sees("compress", waiting=1)
    told = await watched.after(300)
    assert (told["compress"]["stalled"], told["compress"]["left_behind"]) == (False, 1)
    await watched.chunked("bad", 1)
    assert "compress" not in await watched.stalled(100), "only the one waits: the stage is not to blame"
    await watched.chunked("other", 0)
    await watched.sees("compress", waiting=3)
    assert "compress" in await watched.stalled(100)
    await watched.reader.close()


async def test_sessions_of_one_host_that_cannot_be_processed_do_not_make_their_stage_stalled(
    watched: Watched,
) -> None:
    """Breaks: one host with two recordings that nobody can process takes the installation out of service."""
    watched.hosts = {"bad-1": "mallory", "bad-2": "mallory", "good": "alice"}
    for name in ("bad-1", "bad-2"):
        await watched.chunked(name, 0)
        await watched.compress("bad-1", "bad-2")
    for index in range(20):
        await watched.chunked("good", index)
        while not await watched.compress("bad-1", "bad-2"):
            pass
    await watched.sees("compress", waiting=2)
    told = await watched.after(100)
    assert (told["compress"]["stalled"], told["compress"]["left_behind"]) == (False, 2)
    watched.recorded = {"bad-1": Sample(1, (7,)), "bad-2": Sample(1, (7,)), "good": Sample(1, (1,))}
    for n in range(20):
        watched.recorded["good"] = Sample(1, (n,))
        told = await watched.after(5)
    assert (told["record"]["stalled"], told["record"]["left_behind"]) == (False, 2)
    watched.hosts["bad-2"] = "another"
    assert {"compress", "record"} <= set(await watched.stalled(5))
    await watched.reader.close()


async def test_a_recording_that_is_not_folded_stalls_the_stage_record(watched: Watched) -> None:
    """Breaks: fragments pile up in front of the first stage, and nothing says so."""
    watched.recorded = {"s-1": Sample(1, (7,))}
    await watched.watch.look()
    assert await watched.stalled(60) == []
    assert await watched.stalled(5) == ["record"]
    watched.recorded = {"s-1": Sample(1, (8,))}
    assert await watched.stalled(5) == []


async def test_recordings_that_stand_still_beside_busy_ones_are_told(watched: Watched) -> None:
    """Breaks: of a thousand recordings two are not processed any more, and nobody hears of it."""
    for n in range(20):
        watched.recorded = {"busy": Sample(1, (n,)), "s-1": Sample(1, (7,)), "idle": Sample(0, (3,))}
        told = await watched.after(5)
    assert (told["record"]["stalled"], told["record"]["left_behind"]) == (False, 1)
    watched.recorded["idle"] = Sample(1, (3,))
    for n in range(20):
        watched.recorded["busy"] = Sample(1, (100 + n,))
        told = await watched.after(5)
    assert (told["record"]["stalled"], told["record"]["still_s"]) == (True, 195.0)


async def test_one_recording_is_not_left_behind_by_one_that_moved_before_both_stood_still(
    watched: Watched,
) -> None:
    """Breaks: a worker hangs, and the last recording that it folded is taken for a sign of life."""
    watched.recorded = {"first": Sample(1, (1,)), "last": Sample(1, (1,))}
    await watched.after(5)
    watched.recorded = {"first": Sample(1, (1,)), "last": Sample(0, (2,))}
    assert await watched.stalled(70) == ["record"]


async def test_states_that_nobody_could_renew_are_told_with_their_age(watched: Watched) -> None:
    """Breaks: the broker answers no conductor, and what was true an hour ago is told as if it were new."""
    async with watched.jet.serve(subjects.STAGE_STATES, lambda: watched.watch.answer()):
        await watched.after(5)
        await check_stages(watched.jet)
        watched.now_s += 3600
        with pytest.raises(Unavailable, match="not looked at for 3600 s") as unseen:
            await check_stages(watched.jet)
        assert unseen.value.code == "stage.unseen"
        await watched.after(5)
        await check_stages(watched.jet)


async def test_of_several_conductors_the_one_that_saw_the_stage_longest_counts(watched: Watched) -> None:
    """Breaks: a second conductor starts, answers first, and has seen no stage stand still yet."""
    watched.recorded = {"s-1": Sample(1, (7,)), "s-2": Sample(1, (7,))}
    assert await watched.stalled(70) == ["record"]
    new = watched.another()
    await new.look()
    for first, second in ((watched.watch, new), (new, watched.watch)):
        async with (
            watched.jet.serve(subjects.STAGE_STATES, first.answer),
            watched.jet.serve(subjects.STAGE_STATES, second.answer),
        ):
            with pytest.raises(Unavailable) as stalled:
                await check_stages(watched.jet)
            assert (stalled.value.code, stalled.value.place) == ("stage.stalled", "record")


def test_nothing_is_judged_of_a_time_in_which_nobody_looked() -> None:
    """Breaks: after a conductor was stopped for an hour, every stage with work is called stalled."""
    seen = observed(Progress(Sample(1, (5,)), since_s=0, seen_s=10), Sample(1, (5,)), 3610, unseen_s=30)
    assert still_s(seen) == 0
