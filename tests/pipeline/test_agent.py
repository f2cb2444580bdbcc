"""The agent over a host that a test moves: real server, conductor and worker."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from infra.nats_server.server import NatsServer
from schemas.config.profiles import PROFILES
from schemas.errors import Unavailable
from schemas.ports.processes import NewPart, Picture
from schemas.ports.rdp import RdpSession
from streams.host import agent as module
from streams.host.agent import Agent, Plan
from tests.support.machine.waiting import PATIENCE_S, until
from tests.support.pipeline.conducted import SETTINGS, World, system

ALICE = RdpSession("100.1", 10, "alice", 1000, "CORP", client="192.0.2.7")
BOB = RdpSession("200.1", 11, "bob", 1001)
PLAN = Plan("rdp-1", SETTINGS, PROFILES["standard"])


class Screen:
    """A display that shows one block of bytes for each part, until it is stopped."""

    def __init__(self, fails: bool = False, ends: bool = False) -> None:
        self.cuts: asyncio.Queue[str] = asyncio.Queue()
        self._fails, self._ends = fails, ends

    async def __aiter__(self) -> AsyncIterator[bytes | NewPart]:
        yield bytes(1000)
        if self._fails:
            raise Unavailable("the encoder failed", code="capture.failed")
        while not self._ends and (reason := await self.cuts.get()):
            yield NewPart(reason)
            yield bytes(1000)

    def cut(self, reason: str) -> None:
        self.cuts.put_nowait(reason)

    def stop(self) -> None:
        self.cuts.put_nowait("")


@dataclass
class Host:
    """The port RdpHost. A test changes `now`."""

    now: list[RdpSession] = field(default_factory=list)
    failures: int = 0
    """So many displays fail before one works."""
    opened: int = 0
    bugs: int = 0
    """So many displays raise an error that nobody knows."""
    ending: int = 0
    """So many displays end by themselves."""
    unseen: Exception | None = None
    """No look succeeds."""
    blind: bool = False
    """No notice becomes visible."""
    notice: asyncio.Event = field(default_factory=asyncio.Event)

    def sessions(self) -> list[RdpSession]:
        if self.unseen is not None:
            raise self.unseen
        return list(self.now)

    async def size(self, session: RdpSession) -> tuple[int, int]:
        return (200, 720)

    @asynccontextmanager
    async def source(self, session: RdpSession, picture: Picture) -> AsyncIterator[Screen]:
        self.opened += 1
        if self.opened <= self.bugs:
            raise OSError("too many open files")
        yield Screen(self.opened <= self.failures, self.opened <= self.ending)

    async def tell(self, session: RdpSession, text: str, seconds: float, shown: Callable[[], None]) -> None:
        if not self.blind:
            shown()
        raise Unavailable("the display is gone", code="display.gone")

    async def noticed(self) -> None:
        await self.notice.wait()
        self.notice.clear()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.05)
    monkeypatch.setattr(module, "RETRY_S", 0.05)


@asynccontextmanager
async def agent_on(world: World, host: Host, plan: Plan = PLAN) -> AsyncIterator[Agent]:
    """An agent that runs, and ends in order."""
    stop, found = asyncio.Event(), Agent(world.jet, world.here.identity, host, plan)
    running = asyncio.create_task(found.run(stop))
    try:
        yield found
    finally:
        stop.set()
        async with asyncio.timeout(PATIENCE_S):
            await running


async def sessions(world: World, wanted: Callable[[list[str]], bool]) -> list[str]:
    """The names of all sessions, sorted by time, once they are as wanted."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = (await world.ask("list", ""))["sessions"]
            names = [one["session"] for one in sorted(found, key=lambda one: int(one["created_us"]))]
            if wanted(names):
                return names
            await asyncio.sleep(0.05)


async def recording(agent: Agent, count: int) -> None:
    """Return when so many sessions are recorded."""
    await until(lambda: len([1 for one in agent.followed if one.recording and one.recording.begun]) >= count)


async def test_each_session_of_the_host_is_one_recording(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: two people work on one host, and one of them is not recorded, or twice."""
    async with system(server, tmp_path) as world:
        host = Host([ALICE])
        async with agent_on(world, host) as agent:
            await recording(agent, 1)
            host.now = [ALICE, BOB]
            host.notice.set()
            await recording(agent, 2)
            first, second = [one.recording.session for one in agent.followed if one.recording]
            host.now = [BOB]
            assert (await world.until(first, "STOPPED"))["state"] == "STOPPED"
            assert (await world.ask("show", second))["state"] == "ACTIVE"
            told = (await world.ask("details", first))["details"]
        await world.until(second, "STOPPED")
        assert len(await sessions(world, lambda names: True)) == 2
        config = told["rdp_config"]
        assert [config[name] for name in ("host", "username", "domain", "client_address")] == [
            *("rdp-1", "alice", "CORP", "192.0.2.7"),
        ]


async def test_a_disconnect_and_a_reconnect_are_told_to_the_recording(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: work of programs without a person in front of them is taken for the work of that person."""
    async with system(server, tmp_path) as world:
        host = Host([replace(ALICE, connected=False)])
        async with agent_on(world, host) as agent:
            await recording(agent, 1)
            host.now = [ALICE]
            (followed,) = agent.followed
            await until(lambda: followed.rdp.connected)
            assert followed.recording is not None
            session = followed.recording.session
        shown = await world.until(session, "STOPPED")
        assert shown["recorded"] == 3, "a chunk for each part: start, disconnected, reconnected"


async def test_a_recording_that_breaks_begins_again(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: an encoder fails once, and the rest of the working day is not recorded."""
    async with system(server, tmp_path) as world:
        host = Host([ALICE], failures=2)
        async with agent_on(world, host):
            names = await sessions(world, lambda names: len(names) == 3)
            for broken in names[:2]:
                await world.until(broken, "STOPPED")
            await world.until(names[2], "ACTIVE")
        await world.until(names[2], "STOPPED")


@pytest.mark.parametrize("kind", ["bugs", "ending"])
async def test_a_source_that_fails_or_ends_is_followed_by_another(
    server: NatsServer, tmp_path: Path, kind: str
) -> None:
    """Breaks: after one error, or one trick of the person, the rest of the day is not recorded."""
    async with system(server, tmp_path) as world:
        host = Host([ALICE], bugs=int(kind == "bugs"), ending=int(kind == "ending"))
        async with agent_on(world, host):
            await until(lambda: host.opened == 2)
            names = await sessions(world, lambda names: len(names) == (1 if kind == "bugs" else 2))
            await world.until(names[-1], "ACTIVE")
        await world.until(names[-1], "STOPPED")


async def test_a_host_that_cannot_be_seen_ends_no_recording(
    server: NatsServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Breaks: a user makes a look fail, and all recordings of the host end, or the log fills the disk."""
    async with system(server, tmp_path) as world:
        host = Host([ALICE])
        async with agent_on(world, host) as agent:
            await recording(agent, 1)
            host.unseen = ValueError("a line of a table")
            await until(lambda: "host_unseen" in caplog.text)
            await asyncio.sleep(10 * module.LOOK_S)
            host.unseen, host.now = None, [ALICE, BOB]
            await recording(agent, 2)
            assert [one.rdp for one in agent.followed] == [ALICE, BOB]
        assert caplog.text.count("host_unseen") == 1


async def test_a_recording_that_somebody_stopped_does_not_begin_again(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: an operator stops a recording, and the host goes on under another name."""
    async with system(server, tmp_path) as world:
        host = Host([ALICE])
        async with agent_on(world, host) as agent:
            await recording(agent, 1)
            (session,) = await sessions(world, lambda names: len(names) == 1)
            await world.ask("stop", session)
            await world.until(session, "STOPPED")
            host.now = [ALICE, BOB]  # the agent has looked again when BOB is recorded
            await recording(agent, 2)
        assert host.opened == 2
        assert len(await sessions(world, lambda names: True)) == 2


async def test_more_sessions_than_the_host_may_record_stop_none(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: one person opens sessions until nobody on that host is recorded any more."""
    monkeypatch.setattr(module, "MOST", 1)
    async with system(server, tmp_path) as world:
        host = Host([ALICE, BOB])
        async with agent_on(world, host) as agent:
            await recording(agent, 1)
            assert [one.rdp for one in agent.followed] == [ALICE]
            assert set(agent.counts().items()) == {
                *((("connected",), 1), (("disconnected",), 0), (("unrecorded",), 1)),
            }
            host.now = [BOB]
            await until(lambda: [one.rdp for one in agent.followed] == [BOB])
            await until(lambda: agent.counts()["unrecorded",] == 0)
            await recording(agent, 1)


@pytest.mark.parametrize("blind", [False, True])
async def test_only_a_notice_that_was_visible_is_in_the_evidence(
    server: NatsServer, tmp_path: Path, blind: bool
) -> None:
    """Breaks: the evidence says that a person was told, and nobody told them."""
    async with system(server, tmp_path) as world:
        host = Host([ALICE], blind=blind)
        async with agent_on(world, host, replace(PLAN, notice="You are recorded.")) as agent:
            await recording(agent, 1)
            (followed,) = agent.followed
            await until(lambda: followed.notice is not None and followed.notice.done())
            assert followed.recording is not None
            session = followed.recording.session
        shown = await world.until(session, "STOPPED")
        assert shown["recorded"] == (1 if blind else 2), "a chunk for each part: start, notice"
