"""The event log and the directory over it, on a real server: many writers, lost acks, lagging readers."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from itertools import pairwise
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from handlers.lifecycle.session import Session
from infra.jetstream import Jet, connect
from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.errors import Conflict, NotFound, RefusedByState, Unavailable
from schemas.events import commands
from schemas.events.commands import CREATE_PREFIX, Command, Create, create_request
from schemas.events.session import SessionSettings, stored_bytes
from schemas.format.jcs import jcs, strict_loads
from streams.event_store import topology
from streams.event_store.session_directory import SessionDirectory
from streams.event_store.session_log import SessionLog, read_event
from tests.support.machine.waiting import PATIENCE_S

HOST = Ed25519PrivateKey.from_private_bytes(b"h" * 32)
PUBLIC = HOST.public_key().public_bytes_raw()
NAME = "demo-01"


def create(session: str = NAME, counter: int = 1, cause: str = "create") -> Create:
    settings = SessionSettings()
    asked = create_request(session, "host-1", PUBLIC, counter, bytes(32), settings)
    return Create(
        session=session, at_us=1, who="host-1", cause=cause, host="host-1", host_key=PUBLIC, counter=counter,
        prev_genesis=bytes(32), settings=settings, request=HOST.sign(CREATE_PREFIX + asked),
    )  # fmt: skip


def order(kind: type[Command], cause: str, **said: Any) -> Command:
    return kind.model_validate({"session": NAME, "at_us": 2, "who": "tester", "cause": cause, **said})


@pytest.fixture
async def log(jet: Jet) -> SessionLog:
    await topology.declare(jet, 1 << 30)
    log = SessionLog(jet)
    await log.execute(create())
    return log


async def test_fifty_writers_at_once_lose_nothing_and_double_nothing(
    log: SessionLog, server: NatsServer
) -> None:
    """Breaks: two processes append on the same sequence and one transition is lost."""
    jets = await asyncio.gather(*(connect(server.url, name=f"w{n}", timeout_s=PATIENCE_S) for n in range(5)))
    logs = [SessionLog(jet) for jet in jets]
    writers = [
        logs[n % 5].execute(order(commands.ChangeHold, f"c{n}", held=n % 2 == 0, reason=f"r{n}"))
        for n in range(50)
    ]
    await asyncio.gather(*writers)
    history = [strict_loads(line) for line in await log.history(NAME)]
    said = [event["held"] for event in history[1:]]
    assert all(a != b for a, b in pairwise(said)), "a hold that stands was placed again"
    assert len({event["cause"] for event in history}) == len(history)
    session = await log.load(NAME)
    assert (session.events, session.held) == (len(history), said[-1])
    for jet in jets:
        await jet.close()


async def test_of_fifty_writers_of_one_command_one_appends(log: SessionLog) -> None:
    """Breaks: a command that is retried by an impatient caller happens twice."""
    done = await asyncio.gather(*(log.execute(order(commands.Start, "start")) for _ in range(50)))
    assert {session.state for session in done} == {"STARTING"}
    assert len(await log.history(NAME)) == 2


async def test_of_fifty_writers_who_want_the_same_move_one_wins_each_time(log: SessionLog) -> None:
    """Breaks: two callers are both told that theirs was the move, or the log holds two moves, or none."""
    # CLEANUP in its own state is no move and no error
    for kind, state, content in ((commands.Start, "STARTING", 1), (commands.Cleanup, "CLEANUP", 50)):
        before = len(await log.history(NAME))
        writers = [log.execute(order(kind, f"{state}-{n}")) for n in range(50)]
        answers = await asyncio.gather(*writers, return_exceptions=True)
        answered = [one for one in answers if isinstance(one, Session)]
        assert {session.state for session in answered} == {state}
        assert len(answered) == content
        assert {type(one) for one in answers} <= {Session, RefusedByState}
        assert len(await log.history(NAME)) == before + 1


async def test_fifty_writers_each_allot_a_run_of_their_own(log: SessionLog) -> None:
    """Breaks: two recoveries share a run, and the broker swallows one's messages."""
    await log.execute(order(commands.Error, "e"))
    await asyncio.gather(*(log.execute(order(commands.AllotRun, f"r{n}", chunks=0)) for n in range(50)))
    runs = [strict_loads(line)["run"] for line in (await log.history(NAME))[2:]]
    assert runs == list(range(1, 51))


class LosingJet:
    """A connection that stores what it is given and then says that it failed, `times` times."""

    def __init__(self, jet: Jet, times: int, error: Exception) -> None:
        self._jet, self.times, self._error = jet, times, error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._jet, name)

    async def append(
        self, subject: str, data: bytes, expected_seq: int, headers: Mapping[str, str] | None = None
    ) -> int:
        seq = await self._jet.append(subject, data, expected_seq, headers)
        if self.times:
            self.times -= 1
            raise self._error
        return seq


@pytest.mark.parametrize(
    "error", [Unavailable("timeout", code="t.t"), Conflict("wrong last sequence", code="append.conflict")]
)
async def test_an_append_whose_ack_was_lost_is_found_and_not_repeated(
    log: SessionLog, jet: Jet, error: Exception
) -> None:
    """Breaks: RECOVER after a timeout allots two runs."""
    await log.execute(order(commands.Error, "e"))
    losing = SessionLog(LosingJet(jet, 1, error))  # type: ignore[arg-type]
    session = await losing.execute(order(commands.Recover, "r", chunks=0))
    assert (session.state, session.run) == ("ACTIVE", 1)
    assert (await log.load(NAME)).events == 3


async def test_an_append_that_never_gets_through_says_unavailable(log: SessionLog, jet: Jet) -> None:
    """Breaks: an outage is reported as a refused command."""

    class Down(LosingJet):
        async def append(self, *args: Any, **more: Any) -> int:
            raise Unavailable("no answer", code="nats.timeout")

    with pytest.raises(Unavailable):
        await SessionLog(Down(jet, 0, OSError())).execute(order(commands.Start, "s"))  # type: ignore[arg-type]
    assert (await log.load(NAME)).state == "CREATED"


async def test_a_refused_command_appends_nothing(log: SessionLog) -> None:
    """Breaks: a refusal leaves traces that the next fold trips over."""
    with pytest.raises(RefusedByState):
        await log.execute(order(commands.Resume, "r"))
    with pytest.raises(NotFound):
        await log.execute(order(commands.Stop, "s").model_copy(update={"session": "nobody"}))
    assert len(await log.history(NAME)) == 1


async def test_a_stale_fold_is_brought_up_before_anything_is_decided(log: SessionLog) -> None:
    """Breaks: a follower's old view lets a STOPPED session start again."""
    stale = await log.load(NAME)
    await log.execute(order(commands.Start, "s"))
    session = await log.execute(order(commands.Error, "e"), stale)
    assert session.events == 3


async def test_stored_lines_are_canonical(log: SessionLog) -> None:
    """Breaks: the history in an evidence copy is not what a strict reader takes."""
    await log.execute(order(commands.Start, "s"))
    for line in await log.history(NAME):
        assert jcs(strict_loads(line)) == line
        event = read_event(line)
        assert event is not None
        assert stored_bytes(event) == line


async def test_an_event_of_a_newer_version_is_counted_and_otherwise_ignored(
    log: SessionLog, jet: Jet
) -> None:
    """Breaks: an older process cannot follow a newer one's log."""
    session = await log.load(NAME)
    newer = jcs({"type": "Frozen2", "session": NAME, "at_us": 1, "who": "x", "cause": "y", "version": 2})
    await jet.append(subjects.lifecycle(NAME), newer, session.last_seq)
    after = await log.execute(order(commands.Start, "s"))
    assert (after.state, after.events) == ("STARTING", 3)


@pytest.fixture
async def directory(jet: Jet, log: SessionLog) -> AsyncIterator[SessionDirectory]:
    directory = SessionDirectory(jet)
    task = asyncio.create_task(directory.run())
    await directory.ready()
    yield directory
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_directory_knows_what_the_log_says(log: SessionLog, directory: SessionDirectory) -> None:
    """Breaks: a worker drops the chunks of a session that was just created."""
    seen: list[Session] = []
    directory.on_change(seen.append)
    session = await log.execute(order(commands.Start, "s"))
    await log.execute(create("demo-02", 2, "c2"))
    await directory.caught_up()
    assert directory.get(NAME) == session
    assert directory.get("nobody") is None
    assert [one.id for one in directory.sessions()] == [NAME, "demo-02"]
    assert [one.state for one in seen] == ["STARTING", "CREATED"]


async def test_waiting_for_a_state_ends_when_it_is_there(
    log: SessionLog, directory: SessionDirectory
) -> None:
    """Breaks: START answers before the host can seal, or never."""
    waiting = asyncio.create_task(directory.until(NAME, lambda session: session.state == "ERROR"))
    await log.execute(order(commands.Start, "s"))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await log.execute(order(commands.Error, "e"))
    assert (await asyncio.wait_for(waiting, PATIENCE_S)).state == "ERROR"


async def test_a_log_whose_name_no_session_can_have_is_left_out(
    log: SessionLog, directory: SessionDirectory, jet: Jet
) -> None:
    """Breaks: one line under such a name, and every worker ends as often as it is started."""
    (first, *_) = await log.history(NAME)
    await jet.publish("lucid.lifecycle.statistics", first)
    await log.execute(create("demo-02", 2, "c2"))
    await asyncio.wait_for(directory.caught_up(), PATIENCE_S)
    assert [one.id for one in directory.sessions()] == [NAME, "demo-02"]


async def test_one_unreadable_event_does_not_blind_the_directory(
    log: SessionLog, directory: SessionDirectory, jet: Jet
) -> None:
    """Breaks: one bad line and every session of the installation stands still."""
    last = directory.get(NAME)
    assert last is not None
    await jet.append(subjects.lifecycle(NAME), b'{"type":"Created"}', last.last_seq)
    await log.execute(create("demo-02", 2, "c2"))
    await asyncio.wait_for(directory.caught_up(), PATIENCE_S)
    assert directory.get("demo-02") is not None
