"""Commands in any order against the real command service: a state machine of Hypothesis drives them.

The rules are written out here again, by hand. The service runs in this process, over a real server.
"""

import asyncio
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from unittest.mock import patch

import uvloop
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from infra.nats_server.server import NatsServer
from schemas.errors import LucidError, RefusedByState, Stale
from schemas.events.session import Created, Transition
from streams.control.client import call
from streams.event_store.session_log import SessionLog, read_event
from streams.retention import shredding
from streams.roles.services import run_conductor, run_worker
from tests.support.pipeline.conducted import World, connected, running

T = TypeVar("T")
EXAMPLES, STEPS = 25, 20

CREATED, ACTIVE, PAUSED, STOPPING = "CREATED", "ACTIVE", "PAUSED", "STOPPING"
ERROR, DESTROYED = "ERROR", "DESTROYED"
MOVES = {
    (CREATED, "start"): ACTIVE,
    (ACTIVE, "pause"): PAUSED,
    (PAUSED, "resume"): ACTIVE,
    (ACTIVE, "stop"): STOPPING,
    (PAUSED, "stop"): STOPPING,
    **{(state, "error"): ERROR for state in (CREATED, ACTIVE, PAUSED, STOPPING, ERROR)},
    (ERROR, "recover"): ACTIVE,
    **{(state, "destroy"): DESTROYED for state in (CREATED, ACTIVE, PAUSED, STOPPING, ERROR)},
}
"""Where a command leads, once the conductor has done its part. No worker runs, so nothing is ever sealed."""
NAMES = ("one", "two", "three")


class Service:
    """The command service over a server of its own, and the loop on which both run."""

    def __init__(self, path: Path, *, worker: bool = False) -> None:
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.stack, self.path, self.numbers = AsyncExitStack(), path, 0
        self.world: World
        self.do(self._start(worker))

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def close(self) -> None:
        self.do(self.stack.aclose())
        self.runner.close()

    async def _start(self, worker: bool) -> None:
        server = NatsServer(self.path / "nats")
        await server.start()
        self.stack.push_async_callback(server.stop)
        self.world = await self.stack.enter_async_context(connected(server, self.path))
        await self.stack.enter_async_context(running(run_conductor, self.world))
        await self.world.answered()
        if worker:
            await self.stack.enter_async_context(running(run_worker, self.world))


class Model:
    """One session as it should be."""

    def __init__(self, name: str, cause: str) -> None:
        self.name, self.cause = name, cause
        self.state, self.paused, self.held, self.revision = CREATED, False, False, 1
        self.done: list[tuple[str, dict[str, Any]]] = []


class Lifecycle(RuleBasedStateMachine):
    """Any command at any time, repeated at any time."""

    service: ClassVar[Service]
    sessions = Bundle("sessions")

    @initialize()
    def begin(self) -> None:
        self.models: list[Model] = []

    def ask(self, command: str, model: Model, **body: Any) -> LucidError | None:
        """The error of a command, or None."""
        try:
            self.service.do(call(self.service.world.jet, command, {"session": model.name, **body}))
        except LucidError as error:
            return error
        return None

    def cause(self) -> str:
        self.service.numbers += 1
        return f"c{self.service.numbers}"

    @rule(target=sessions, name=st.sampled_from(NAMES))
    def open(self, name: str) -> Model:
        cause = self.cause()
        model = Model(f"s{self.service.numbers}-{name}", cause)
        assert self.ask("open", model, cause=cause, details={"name": name}) is None
        self.models.append(model)
        return model

    @rule(model=sessions, other=st.booleans())
    def open_again(self, model: Model, other: bool) -> None:
        name = model.name.rpartition("-")[2]
        error = self.ask("open", model, cause=model.cause, details={"name": "other" if other else name})
        if other and model.state != DESTROYED:
            assert isinstance(error, RefusedByState)
            assert error.code == "idempotency.reused"
        else:
            assert error is None

    @rule(model=sessions, command=st.sampled_from(sorted({command for _, command in MOVES})))
    def move(self, model: Model, command: str) -> None:
        wanted = MOVES.get((model.state, command))
        if command == "destroy" and model.held:
            wanted = None
        body = {"cause": self.cause()}
        error = self.ask(command, model, **body)
        if wanted is None:
            assert isinstance(error, RefusedByState), (model.state, command, error)
            return
        assert error is None, (model.state, command, error)
        model.state = wanted
        if command != "destroy":
            model.done.append((command, body))

    @rule(model=sessions, data=st.data())
    def repeat(self, model: Model, data: st.DataObject) -> None:
        if model.done:
            command, body = data.draw(st.sampled_from(model.done))
            if command == "start" and model.state == DESTROYED:
                return
            assert self.ask(command, model, **body) is None, (command, model.state)

    @rule(model=sessions, paused=st.booleans())
    def pipeline(self, model: Model, paused: bool) -> None:
        error = self.ask("pause_pipeline" if paused else "resume_pipeline", model, cause=self.cause())
        if model.state == DESTROYED and paused != model.paused:
            assert isinstance(error, RefusedByState)
        else:
            assert error is None
            model.paused = paused

    @rule(model=sessions, held=st.booleans())
    def hold(self, model: Model, held: bool) -> None:
        error = self.ask("hold", model, held=held, cause=self.cause())
        if model.state == DESTROYED and held != model.held:
            assert isinstance(error, RefusedByState)
        else:
            assert error is None
            model.held = held

    @rule(model=sessions, behind=st.integers(0, 2))
    def update(self, model: Model, behind: int) -> None:
        revision = max(model.revision - behind, 0)
        error = self.ask("update", model, revision=revision, details={"name": "new"}, cause=self.cause())
        if model.state == DESTROYED:
            assert isinstance(error, RefusedByState)
        elif revision != model.revision:
            assert isinstance(error, Stale)
        else:
            assert error is None
            model.revision += 1

    @invariant()
    def each_session_is_what_it_should_be(self) -> None:
        for model in getattr(self, "models", ()):
            shown = self.service.do(self.settled(model))
            assert (shown["state"], shown["pipeline_paused"]) == (model.state, model.paused)
            assert (shown["held"], shown["revision"]) == (model.held, model.revision)

    async def settled(self, model: Model) -> dict[str, Any]:
        return await self.service.world.until(model.name, model.state)

    def teardown(self) -> None:
        """Every history is a walk through the states, and no cause is in it twice."""
        for model in getattr(self, "models", ()):
            lines = self.service.do(SessionLog(self.service.world.jet).history(model.name))
            events = [read_event(line) for line in lines]
            assert isinstance(events[0], Created)
            state, causes = CREATED, set()
            for event in events:
                assert event is not None
                assert event.cause not in causes
                causes.add(event.cause)
                if isinstance(event, Transition):
                    assert event.from_state == state
                    state = event.to_state
            assert state == model.state


def test_commands_in_any_order_leave_every_session_where_the_rules_say() -> None:
    """Breaks: an order of commands that nobody thought of loses a session, or does what is refused."""
    with tempfile.TemporaryDirectory() as folder, patch.object(shredding, "PAUSE_S", 0):
        Lifecycle.service = Service(Path(folder))
        try:
            run_state_machine_as_test(
                Lifecycle, settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None)
            )
        finally:
            Lifecycle.service.close()
