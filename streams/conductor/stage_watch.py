"""Watches the stages, and answers which of them stand still (`lucid.stages`).

1. Of five stages it looks at their durable consumers, of `record` at how far each recording is folded. A
   recording with a paused pipeline waits for no stage.
2. handlers/lifecycle/stage_progress.py judges. Nothing is stored: a new conductor begins to look anew.
3. Without an answer of the broker nothing is learnt, and nothing is judged. Each answer tells how old it is.
4. Messages are acknowledged in any order, and one old message keeps the floor where it is. So the newest
   result and dead letter of a stage are asked for, too, while something waits for it.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypedDict

from handlers.lifecycle.stage_progress import Finished, Progress, Sample, left_behind, observed, still_s
from schemas import subjects
from schemas.config.logs import logger
from schemas.errors import LucidError
from schemas.ports import Jet
from schemas.ports.messages import ConsumerInfo
from streams.conductor.waiting_sessions import StageView
from streams.pipeline.stages import STAGES

LOOK_MOST_S = 5.0
RECORD = STAGES[0].verb
OTHERS = {stage.verb: stage for stage in STAGES[1:]}

log = logger("lucid.conductor")


class StageState(TypedDict):
    """One stage. waiting: messages, or recordings. left_behind: sessions that stand still beside others.

    age_s: since the look. old: then nothing is known of now.
    """

    waiting: int
    still_s: float
    stalled: bool
    left_behind: int
    age_s: float
    old: bool


class Part(NamedTuple):
    """A consumer of a stage, or the stage `record`, as it was seen last."""

    stage: str
    waiting: int
    still_s: float = 0.0
    stalled: bool = False
    left_behind: tuple[str, ...] = ()


class StageWatch:
    """One for each conductor."""

    def __init__(
        self,
        jet: Jet,
        recorded: Callable[[], Mapping[str, Sample]],
        unfinished: Callable[[], Mapping[str, str]],
        stalled_s: float,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """recorded: a look at `record` by session. unfinished: hosts by session.

        stalled_s: how long a stage may stand still.
        """
        self._jet, self._recorded, self._unfinished = jet, recorded, unfinished
        self._stalled_s, self._clock_s = stalled_s, clock_s
        self._look_s = min(LOOK_MOST_S, stalled_s / 4)
        self._old_s = stalled_s / 2
        """Older states tell nothing of now."""
        self._looked_s = clock_s()
        self._progress: dict[str, Progress] = {}
        """By name of the consumer, or of a session of `record`."""
        self._moved = Finished("", 0)
        """The recording that was folded on last; its number is the time in ms."""
        self._parts = [Part(RECORD, 0)]

    async def run(self) -> None:
        """Look and answer until cancelled."""
        async with self._jet.serve(subjects.STAGE_STATES, self.answer):
            while True:
                try:
                    await self.look()
                except LucidError as error:
                    log.warning("stages_unseen", age_s=round(self._age_s(), 1), error=error)
                await asyncio.sleep(self._look_s)

    async def look(self) -> None:
        """Look at each stage once. Raises Unavailable, NotFound; then the former states stay."""
        consumers = await self._jet.consumers(subjects.CHUNKS)
        now_s, seen = self._clock_s(), dict[str, Progress]()
        parts = [
            await self._look_at(one, now_s, seen) for one in consumers if one.name.partition("-")[0] in OTHERS
        ]
        parts.append(self._look_at_record(now_s, seen))
        for name in {name for part in parts for name in part.left_behind} - {
            name for part in self._parts for name in part.left_behind
        }:
            log.error("session_left_behind", session=name)
        self._looked_s, self._progress, self._parts = now_s, seen, parts

    async def _look_at(self, one: ConsumerInfo, now_s: float, seen: dict[str, Progress]) -> Part:
        stage, waiting = OTHERS[one.name.partition("-")[0]], one.pending + one.unacknowledged
        view = StageView(self._jet, stage, one)
        moved = (one.floor, *(await view.outcomes() if waiting else ()))
        progress = observed(self._progress.get(one.name), Sample(waiting, moved), now_s, self._old_s)
        seen[one.name], still = progress, still_s(progress)
        if still <= self._stalled_s:
            return Part(stage.verb, waiting, still)
        host_of = self._host_of()
        sessions = await view.waiting(self._unfinished(), host_of)
        if left_behind(sessions, await view.finished(), host_of):
            return Part(stage.verb, waiting, still, left_behind=tuple(sessions))
        return Part(stage.verb, waiting, still, stalled=True)

    def _look_at_record(self, now_s: float, seen: dict[str, Progress]) -> Part:
        samples, waits, longest = self._recorded(), dict[str, int](), 0.0
        for name, sample in samples.items():
            key = f"{RECORD}-{name}"
            before = self._progress.get(key)
            progress = seen[key] = observed(before, sample, now_s, self._old_s)
            if before is not None and before.sample.moved != sample.moved:
                self._moved = Finished(name, int(now_s * 1000))
            still = still_s(progress)
            longest = max(longest, still)
            if still > self._stalled_s:
                # Another one must have moved long after this one did not: else both may stand still now.
                waits[name] = int((progress.since_s + self._stalled_s / 2) * 1000)
        waiting = sum(sample.waiting for sample in samples.values())
        if waits and left_behind(waits, self._moved, self._host_of()):
            return Part(RECORD, waiting, longest, left_behind=tuple(waits))
        return Part(RECORD, waiting, longest, stalled=bool(waits))

    def _host_of(self) -> Callable[[str], str]:
        """The host of a session. An unknown session counts as a host of its own."""
        hosts = self._unfinished()
        return lambda name: hosts.get(name, name)

    def answer(self) -> bytes:
        """The states as JSON."""
        return json.dumps(self.states()).encode()

    def states(self) -> dict[str, StageState]:
        """By stage: how much waits, since when nothing was finished, and whether that is too long."""
        found, age_s = dict[str, StageState](), self._age_s()
        for part in self._parts:
            state = found.setdefault(part.stage, _no_state(age_s, old=age_s > self._old_s))
            state["waiting"] += part.waiting
            state["still_s"] = max(round(part.still_s, 1), state["still_s"])
            state["stalled"] |= part.stalled
            state["left_behind"] += len(part.left_behind)
        return found

    def _age_s(self) -> float:
        return self._clock_s() - self._looked_s


def _no_state(age_s: float, *, old: bool) -> StageState:
    return {
        "waiting": 0,
        "still_s": 0.0,
        "stalled": False,
        "left_behind": 0,
        "age_s": round(age_s, 1),
        "old": old,
    }
