"""Many sessions go through their whole life at once, while the lifecycle service is killed again and again.

1. Each session repeats its commands until they are answered, with the same cause, as every client may.
2. It counts what it has asked for. Afterwards its history must hold that, each transition once, and every
   transition must be one of the table.
"""

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from handlers.lifecycle.rules import ROWS
from handlers.lifecycle.session import evolve, initial
from infra.jetstream import Message
from schemas import subjects
from schemas.errors import Retryable
from schemas.events.session import Created, PipelinePaused, Sealed, SealStarted, State, Transition
from schemas.format.fragment import Kind
from streams.control.client import call
from streams.event_store.session_log import SessionLog, read_event
from tests.support.machine.waiting import PATIENCE_S
from tests.support.pipeline.kills import answered
from tests.support.pipeline.prepared import Prepared, Step
from tests.support.pipeline.processes import Processes, processes, quick_restarts

ANSWER_S = 5.0
"""A request that a killed service has taken is never answered: it is asked again after so long."""
AGAIN_S = 0.1
REST_S = 0.3
LIFE = ("START", "START_COMPLETE", "STOP", "STOP_COMPLETE")
CYCLE = ("PAUSE", "PAUSE_COMPLETE", "RESUME")
STORM_S = 300.0
STEPS: list[Step] = [("data", 3000)] * 4


async def storm(path: Path, sessions: int, kills: int, seed: int) -> "Storm":
    """Run a system below `path`, and a storm over it. Raises AssertionError, TimeoutError."""
    prepared = await asyncio.to_thread(
        lambda: [Prepared(f"storm-{number:03}", number, STEPS) for number in range(1, sessions + 1)]
    )
    with quick_restarts():
        async with processes(path) as system:
            passed = Storm(system, random.Random(seed))
            await passed.run(prepared, kills)
            return passed


@dataclass
class Storm:
    """The sessions, and what each has asked for."""

    system: Processes
    chooser: random.Random
    states: dict[str, str] = field(default_factory=dict)
    """By session, as LIFECYCLE tells everyone."""
    cycles: Counter[str] = field(default_factory=Counter)
    """By session, how often its recording was paused and resumed."""
    waits: Counter[str] = field(default_factory=Counter)
    """By session, how often its pipeline was paused and resumed."""
    calm: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the last kill has struck."""
    moved: asyncio.Condition = field(default_factory=asyncio.Condition)
    repeated: int = 0

    async def run(self, sessions: Sequence[Prepared], kills: int) -> None:
        """Bring every session to STOPPED through so many kills, then check every history."""
        following = asyncio.create_task(self._follow())
        try:
            async with asyncio.timeout(STORM_S), asyncio.TaskGroup() as tasks:
                for prepared in sessions:
                    tasks.create_task(self._live(prepared))
                await self._strike(kills)
        finally:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following
        for prepared in sessions:
            await self._check(prepared.session)

    async def _strike(self, kills: int) -> None:
        struck: set[int] = set()
        while len(struck) < kills:
            await answered(self.system)
            await asyncio.sleep(REST_S * self.chooser.random())
            pid = self.system.victims.get("conductor", 0)
            if pid and pid not in struck:
                os.kill(pid, signal.SIGKILL)
                struck.add(pid)
        self.calm.set()

    async def _live(self, prepared: Prepared) -> None:
        """One session from its creation to its seal. It pauses and resumes as long as the storm lasts."""
        name, waiting = prepared.session, list(prepared.fragments)
        await asyncio.to_thread(prepared.make_key, self.system.data.keys)
        await self._ask("create", name, **prepared.create().model_dump(mode="json", exclude={"session"}))
        await self._ask("start", name)
        await self._reaches(name, State.ACTIVE)
        while not self.calm.is_set() or not self.cycles[name]:
            if waiting and len(waiting) > 1:
                await self.system.patiently(prepared.subject, waiting.pop(0))
            await self._cycle(name)
        await self._ask("stop", name)
        for fragment in waiting:
            await self.system.patiently(prepared.subject, fragment)
        assert prepared.kinds[-1] is Kind.FINAL
        await self._reaches(name, State.STOPPED)

    async def _cycle(self, name: str) -> None:
        number = self.cycles[name]
        if self.chooser.random() < 0.3:
            await self._ask("pause_pipeline", name, f"wait-{number}")
            await self._ask("resume_pipeline", name, f"go-{number}")
            self.waits[name] += 1
        await self._ask("pause", name, f"pause-{number}")
        await self._reaches(name, State.PAUSED)
        await self._ask("resume", name, f"resume-{number}")
        await self._reaches(name, State.ACTIVE)
        self.cycles[name] += 1
        await asyncio.sleep(REST_S * self.chooser.random())

    async def _ask(self, command: str, name: str, cause: str = "", **more: Any) -> None:
        """Ask until it is answered; each time with the same cause."""
        body = {"cause": cause or command, **more, "session": name}
        while True:
            try:
                await call(self.system.jet, command, body, ANSWER_S)
                return
            except Retryable:
                self.repeated += 1
            await asyncio.sleep(AGAIN_S)

    async def _reaches(self, name: str, state: str) -> None:
        async with asyncio.timeout(PATIENCE_S), self.moved:
            await self.moved.wait_for(lambda: self.states.get(name) == state)

    async def _follow(self) -> None:
        async for item in self.system.jet.follow(subjects.LIFECYCLE, [subjects.ALL_LIFECYCLE]):
            event = read_event(item.data) if isinstance(item, Message) else None
            if isinstance(event, Transition):
                async with self.moved:
                    self.states[event.session] = event.to_state
                    self.moved.notify_all()

    async def _check(self, name: str) -> None:
        """The history holds what was asked for, once, and nothing that the table does not allow."""
        events = [read_event(line) for line in await SessionLog(self.system.jet).history(name)]
        assert isinstance(events[0], Created), name
        session = initial(name)
        for seq, event in enumerate(events, 1):
            assert event is not None
            assert event.cause not in session.causes, (name, event)
            if isinstance(event, Transition):
                row = ROWS[session.state, event.trigger]
                assert (event.from_state, event.to_state) == (session.state, row.to_state), (name, event)
            session = evolve(session, event, seq)
        triggers = Counter(event.trigger for event in events if isinstance(event, Transition))
        wanted = dict.fromkeys(LIFE, 1) | dict.fromkeys(CYCLE, self.cycles[name])
        assert triggers == wanted, (name, triggers, wanted)
        kinds = Counter(type(event) for event in events)
        assert (kinds[SealStarted], kinds[Sealed]) == (1, 1), name
        assert kinds[PipelinePaused] == self.waits[name], name
        assert (session.state, session.sealed, session.pipeline_paused) == (State.STOPPED, True, False), name
