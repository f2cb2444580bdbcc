"""Commands and uploads in any order against a real conductor and worker: Hypothesis drives them.

The rules are written out here again, by hand. After each step every session comes to rest, and only then the
next step begins: the answer does not depend on the moment.
"""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any, ClassVar
from unittest.mock import patch

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from schemas import subjects
from schemas.errors import LucidError, RefusedByState
from schemas.format.fragment import Kind, parse
from schemas.subjects import UPLOAD_HOST
from streams.control.client import call
from streams.event_store.recordings import Recordings
from streams.event_store.session_log import SessionLog
from streams.host.upload import Uploads
from streams.retention import shredding
from tests.pipeline.test_commands_in_any_order import MOVES, Service
from tests.pipeline.test_uploads import body, recorded, uploads
from tests.support.machine.waiting import PATIENCE_S

EXAMPLES, STEPS, SESSIONS_MOST = 10, 20, 3
CHUNK_BYTES = 256 << 10
SIZES = (1, 70_000, 300_000)

CREATED, ACTIVE, PAUSED, STOPPING = "CREATED", "ACTIVE", "PAUSED", "STOPPING"
STOPPED, ERROR, DESTROYED = "STOPPED", "ERROR", "DESTROYED"
RECORDING = (ACTIVE, PAUSED, STOPPING)
COMMANDS = ("start", "pause", "resume", "stop", "stop", "error", "recover", "recover", "destroy")
"""Those that lead to a seal come more often."""
AFTER_SEAL = {(STOPPED, "error"): ERROR, (STOPPED, "destroy"): DESTROYED}


async def until(look: Callable[[], Awaitable[bool]]) -> None:
    """Return when the look finds it."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if await look():
                return
            await asyncio.sleep(0.02)


class Model:
    """One session as it should be."""

    def __init__(self, name: str) -> None:
        self.name, self.state = name, CREATED
        self.pipeline_paused = self.ended = self.sealed = False
        self.data = b""

    def rest(self) -> None:
        """Come to rest: a recording that has ended is sealed by itself, unless its pipeline is paused."""
        self.ended = self.ended or self.state == STOPPING
        if self.state in RECORDING and self.ended and not self.pipeline_paused:
            self.state, self.sealed = STOPPED, True


class Chunks(RuleBasedStateMachine):
    """Any command and any upload at any time."""

    service: ClassVar[Service]
    uploads: ClassVar[Uploads]
    sessions = Bundle("sessions")

    @initialize()
    def begin(self) -> None:
        self.models: list[Model] = []

    def ask(self, command: str, model: Model, **more: Any) -> LucidError | None:
        """The error of a command, or None."""
        try:
            self.service.do(call(self.service.world.jet, command, {"session": model.name, **more}))
        except LucidError as error:
            return error
        return None

    @precondition(lambda self: len(self.models) < SESSIONS_MOST)
    @rule(target=sessions, begun=st.sampled_from((True, True, False)))
    def open(self, begun: bool) -> Model:
        self.service.numbers += 1
        model = Model(f"u{self.service.numbers}")
        assert self.ask("open", model, settings={"chunk_bytes": CHUNK_BYTES}) is None
        self.models.append(model)
        if begun:
            self.move(model, "start")
        return model

    @rule(model=sessions, command=st.sampled_from(COMMANDS))
    def move(self, model: Model, command: str) -> None:
        wanted = {**MOVES, **AFTER_SEAL}.get((model.state, command))
        if command == "recover" and model.sealed:
            wanted = None
        error = self.ask(command, model)
        if wanted is None:
            assert isinstance(error, RefusedByState), (model.state, command, error)
        else:
            assert error is None, (model.state, command, error)
            model.state = wanted

    @rule(model=sessions, paused=st.booleans())
    def pipeline(self, model: Model, paused: bool) -> None:
        error = self.ask("pause_pipeline" if paused else "resume_pipeline", model)
        if paused != model.pipeline_paused and (model.state == DESTROYED or (paused and model.sealed)):
            assert isinstance(error, RefusedByState), (model.state, error)
        else:
            assert error is None, (model.state, error)
            model.pipeline_paused = paused

    @rule(model=sessions, size=st.sampled_from(SIZES))
    def upload(self, model: Model, size: int) -> None:
        data = Random(len(model.data)).randbytes(size)
        sending = self.uploads.send(model.name, body(data), len(model.data))
        if model.state != ACTIVE or model.ended:
            with pytest.raises(RefusedByState, match=r"upload\.state"):
                self.service.do(sending)
            return
        model.data += data
        assert self.service.do(sending) == len(model.data)

    @invariant()
    def each_session_comes_to_rest_where_it_should(self) -> None:
        for model in getattr(self, "models", ()):
            model.rest()
            shown = self.service.do(self.settled(model))
            assert (shown["state"], shown["sealed"]) == (model.state, model.sealed), shown
            assert shown["pipeline_paused"] == model.pipeline_paused
            if model.state == STOPPED:
                assert (shown["plain"], shown["missing"]) == (len(model.data), 0)

    async def settled(self, model: Model) -> dict[str, Any]:
        world = self.service.world
        shown = await world.until(model.name, model.state)
        if model.state == ACTIVE:  # after an ERROR before its start, the key is made now
            await until(lambda: self.has_key(model.name))
        if model.state == STOPPING:
            await until(lambda: self.has_final(model.name))
        return shown

    async def has_key(self, session: str) -> bool:
        return bool((await SessionLog(self.service.world.jet).load(session)).dek_id)

    async def has_final(self, session: str) -> bool:
        recordings = await Recordings.open(self.service.world.jet)
        sent = recordings.read_all(subjects.recording(UPLOAD_HOST, session))
        return Kind.FINAL in [parse(message.data).header.kind async for message in sent]

    def teardown(self) -> None:
        """Every session that is left can be brought to its seal, and holds the uploaded bytes then."""
        for model in getattr(self, "models", ()):
            self.pipeline(model, False)
            for command in ("recover", "stop"):
                self.move(model, command)
                model.rest()
                self.service.do(self.settled(model))
            if model.state == STOPPED:
                assert self.service.do(recorded(self.service.world, model.name)) == model.data


def test_commands_and_uploads_in_any_order_seal_the_uploaded_bytes() -> None:
    """Breaks: an order that nobody thought of seals other bytes than came, or never seals them."""
    with tempfile.TemporaryDirectory() as folder, patch.object(shredding, "PAUSE_S", 0):
        Chunks.service = service = Service(Path(folder), worker=True)
        try:
            Chunks.uploads = service.do(uploads(service.world))
            run_state_machine_as_test(
                Chunks, settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None)
            )
        finally:
            service.close()
