"""Watches the stages, and answers which of them stand still (`lucid.stages`).

1. Of five stages it looks at their durable consumers, of `record` at how far the recordings are folded. A
   recording with a paused pipeline waits for no stage.
2. handlers/lifecycle/stage_progress.py judges. Nothing is stored: a new conductor begins to look anew.
3. Without an answer of the broker nothing is learnt, and nothing is judged.
"""

import asyncio
import json
import time
from collections.abc import Callable

from handlers.lifecycle.stage_progress import Progress, Sample, observed, still_s
from schemas import subjects
from schemas.config.logs import logger
from schemas.errors import LucidError
from schemas.ports import Jet
from streams.pipeline.stages import STAGES

LOOK_MOST_S = 5.0
RECORD, *_OTHERS = (stage.verb for stage in STAGES)
OTHERS = tuple(_OTHERS)

log = logger("lucid.conductor")


class StageWatch:
    """One for each conductor."""

    def __init__(
        self,
        jet: Jet,
        recorded: Callable[[], Sample],
        stalled_s: float,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """recorded: a look at the stage `record`; stalled_s: how long a stage may stand still."""
        self._jet, self._recorded, self._stalled_s, self._clock_s = jet, recorded, stalled_s, clock_s
        self._look_s = min(LOOK_MOST_S, stalled_s / 4)
        self._seen: dict[str, Progress] = {}
        """By name of the consumer; `record` by its own name."""

    async def run(self) -> None:
        """Look and answer until cancelled."""
        async with self._jet.serve(subjects.STAGE_STATES, self.answer):
            while True:
                try:
                    await self.look()
                except LucidError as error:
                    log.warning("stages_unseen", error=error)
                await asyncio.sleep(self._look_s)

    async def look(self) -> None:
        """Look at each stage once. Raises Unavailable, NotFound."""
        consumers = await consumers_seen(self._jet)
        now_s, unseen_s = self._clock_s(), self._stalled_s / 2
        samples = {name: sample for name, sample in consumers.items() if name.partition("-")[0] in OTHERS}
        samples[RECORD] = self._recorded()
        self._seen = {
            name: observed(self._seen.get(name), sample, now_s, unseen_s) for name, sample in samples.items()
        }

    def answer(self) -> bytes:
        """The states as JSON."""
        return json.dumps(self.states()).encode()

    def states(self) -> dict[str, dict[str, float | bool]]:
        """By stage: how much waits, since when nothing moved, and whether that is too long."""
        found: dict[str, dict[str, float | bool]] = {}
        for name, progress in self._seen.items():
            stage, still = name.partition("-")[0], still_s(progress)
            before = found.get(stage, {"waiting": 0, "still_s": 0.0})
            found[stage] = {
                "waiting": before["waiting"] + progress.sample.waiting,
                "still_s": round(max(before["still_s"], still), 1),
                "stalled": max(before["still_s"], still) > self._stalled_s,
            }
        return found


async def consumers_seen(jet: Jet) -> dict[str, Sample]:
    """A look at every durable consumer of CHUNKS, by its name."""
    return {
        one.name: Sample(one.pending + one.unacknowledged, (one.floor, one.delivered, one.unacknowledged))
        for one in await jet.consumers(subjects.CHUNKS)
    }
