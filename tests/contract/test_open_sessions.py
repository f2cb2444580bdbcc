"""What starts with many finished sessions in the log: the directory, and the list of what is not finished."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from infra.jetstream import Jet
from schemas import subjects
from schemas.errors import NoSpace, Unavailable
from schemas.events import commands
from streams.bench.finished import FinishedHost
from streams.event_store import open_sessions, topology
from streams.event_store import session_directory as directory_module
from streams.event_store.open_sessions import OpenSessions, OpenSessionsWriter, read_open, write_open
from streams.event_store.session_directory import SessionDirectory
from streams.event_store.session_log import SessionLog
from tests.support.machine.waiting import PATIENCE_S
from tests.support.servers.open_log import begin, fill, order

FINISHED = 300
RECENT = 20


@pytest.fixture(autouse=True)
async def _log(jet: Jet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log of FINISHED sessions, and little memory for them."""
    monkeypatch.setattr(directory_module, "RECENT", RECENT)
    await topology.declare(jet, 2 << 30)
    await fill(jet, FINISHED)


@asynccontextmanager
async def known(jet: Jet) -> AsyncIterator[SessionDirectory]:
    directory = SessionDirectory(jet, sources=True)
    following = asyncio.create_task(directory.run())
    try:
        async with asyncio.timeout(PATIENCE_S):
            await directory.ready()
        yield directory
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


class Counting:
    """A connection that counts the events of sessions that are followed."""

    def __init__(self, jet: Jet) -> None:
        self._jet, self.from_seq = jet, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._jet, name)

    def follow(self, stream: str, filters: list[str], from_seq: int = 1, *more: int) -> object:
        self.from_seq = from_seq
        return self._jet.follow(stream, filters, from_seq, *more)


async def test_a_finished_session_takes_no_memory(jet: Jet) -> None:
    """Breaks: after a hundred thousand recordings no service starts any more."""
    await begin(jet, "open-1")
    await begin(jet, "open-2", "host-2222", start=False)
    async with known(jet) as directory:
        assert [one.id for one in directory.sessions()] == ["open-1", "open-2"]
        assert len(directory._recent) <= RECENT
        assert directory.get("finished-0000000") is None


async def test_a_start_reads_what_came_since_the_list_was_written_and_nothing_else(jet: Jet) -> None:
    """Breaks: every start reads the history of years."""
    await begin(jet, "open-1")
    async with known(jet) as directory:
        await write_open(jet, directory.open_sessions())
        written = directory.position
    await begin(jet, "open-2", "host-2222")
    counting = Counting(jet)
    async with known(counting) as directory:  # type: ignore[arg-type]
        assert counting.from_seq == written + 1
        assert [one.id for one in directory.sessions()] == ["open-1", "open-2"]
        assert directory.sealed.keys() == {f"finished-{number:07}" for number in range(FINISHED)}


async def test_a_finished_session_is_found_when_somebody_names_it(jet: Jet) -> None:
    """Breaks: `show` knows nothing of what was recorded before the last start."""
    async with known(jet) as directory:
        found = await directory.find("finished-0000003")
        assert found is not None
        assert (found.state, found.events, found.sealed) == ("STOPPED", 7, True)
        assert await directory.find("never-was") is None
        assert not list(directory.sessions())


async def test_what_is_asked_of_a_finished_session_opens_it_again(jet: Jet) -> None:
    """Breaks: an order to destroy an old session is never carried out."""
    async with known(jet) as directory:
        seen: list[str] = []
        directory.on_change(lambda session: seen.append(session.state))
        waiting = asyncio.create_task(
            directory.until("finished-0000001", lambda one: one.destroy is not None)
        )
        await SessionLog(jet).execute(order(commands.Cleanup, "finished-0000001"))
        session = await asyncio.wait_for(waiting, PATIENCE_S)
        assert (session.events, session.sealed, seen) == (8, True, ["CLEANUP"])
        assert [one.id for one in directory.sessions()] == ["finished-0000001"]
        assert "finished-0000001" not in directory.sealed
        await write_open(jet, directory.open_sessions())
    async with known(jet) as directory:
        assert [one.state for one in directory.sessions()] == ["CLEANUP"]


@pytest.mark.parametrize("lost", ["stream", "head", "part", "nonsense", "older log"])
async def test_a_list_that_is_lost_costs_time_and_nothing_else(jet: Jet, lost: str) -> None:
    """Breaks: a damaged list hides open sessions: their recordings stop, and nobody seals them."""
    await begin(jet, "open-1")
    async with known(jet) as directory:
        await write_open(jet, directory.open_sessions())
    match lost:
        case "stream":
            await jet.request(f"$JS.API.STREAM.DELETE.{subjects.OPEN}", b"")
        case "head" | "part":
            await jet.purge(subjects.OPEN, f"lucid.open.{lost}")
        case "nonsense":
            await jet.publish(subjects.OPEN_HEAD, b"\xff{")
        case "older log":
            head = await jet.last(subjects.OPEN, subjects.OPEN_HEAD)
            assert head is not None
            await write_open(jet, OpenSessions(10**9, ("other",)))
    async with known(jet) as directory:
        assert [one.id for one in directory.sessions()] == ["open-1"]


async def test_a_list_of_a_log_that_was_taken_back_is_replaced(jet: Jet) -> None:
    """Breaks: after LIFECYCLE came back from a backup and grew again, the list of before it is believed."""
    await write_open(jet, OpenSessions(10**9, ("other",)))
    await begin(jet, "open-1")
    async with known(jet) as directory:
        await write_open(jet, directory.open_sessions())
        newest = directory.position
    head = await jet.last(subjects.OPEN, subjects.OPEN_HEAD)
    assert head is not None
    assert json.loads(bytes(head.data))["position"] == newest


async def test_a_list_is_written_however_much_was_left_by_crashes(jet: Jet) -> None:
    """Breaks: parts that no head names fill the stream, and every later start reads years of the log."""
    size = (await jet.info(subjects.OPEN)).max_bytes
    for part, count in ((900 << 10, size // (900 << 10) + 1), (64 << 10, 20), (4 << 10, 20), (0, 200)):
        with suppress(NoSpace):
            for _ in range(count):
                await jet.publish(subjects.OPEN_PART, bytes(part))
    await write_open(jet, OpenSessions(FINISHED, ("open-1",)))
    assert await read_open(jet) == OpenSessions(FINISHED, ("open-1",))


async def test_a_list_that_is_lost_loses_no_source(jet: Jet) -> None:
    """Breaks: what was recorded stays in the stream for ever, where a hold was the session's last event."""
    held = "finished-0000001"
    await SessionLog(jet).execute(order(commands.ChangeHold, held, held=True))
    async with known(jet) as directory:
        assert held in directory.sealed
        assert not list(directory.sessions())


async def test_of_two_lists_the_newer_counts(jet: Jet) -> None:
    """Breaks: of two conductors the slower one makes every start slow."""
    await begin(jet, "open-1")
    async with known(jet) as directory:
        newest = directory.position
        await asyncio.gather(
            *(write_open(jet, OpenSessions(newest - n, (f"name-{n}",) * n)) for n in range(9))
        )
        await write_open(jet, OpenSessions(newest, ("open-1",)))
        await write_open(jet, OpenSessions(5, ("old",)))
        assert await read_open(jet) == OpenSessions(newest, ("open-1",))
    assert (await jet.info(subjects.OPEN)).messages <= 2


async def test_a_list_of_any_length_fits_into_messages(jet: Jet) -> None:
    """Breaks: with ten thousand open sessions the list is too long to be written, and starts become slow."""
    names = tuple(f"{number:0100}" for number in range(12_000))
    sealed = {f"sealed-{number:093}": number for number in range(12_000)}
    wanted = OpenSessions(FINISHED, names, sealed)
    await write_open(jet, wanted)
    assert await read_open(jet) == wanted


async def test_a_crash_between_two_writes_leaves_a_list_that_is_true(jet: Jet) -> None:
    """Breaks: the power fails while the list is written, and open sessions are forgotten."""
    await begin(jet, "open-1")

    class Struck:
        def __init__(self, at: int) -> None:
            self.left = at

        def __getattr__(self, name: str) -> object:
            call = getattr(jet, name)
            if name not in ("publish", "append", "purge"):
                return call

            async def struck(*args: object) -> object:
                self.left -= 1
                if self.left < 0:
                    raise Unavailable("the power failed", code="test.power")
                return await call(*args)

            return struck

    async with known(jet) as directory:
        await write_open(jet, directory.open_sessions())
    await begin(jet, "open-2", "host-2222")
    for at in range(5):
        async with known(jet) as directory:
            assert [one.id for one in directory.sessions()] == ["open-1", "open-2"]
            if at < 4:
                with pytest.raises(Unavailable):
                    await write_open(Struck(at), directory.open_sessions())  # type: ignore[arg-type]


async def test_the_list_is_written_while_the_log_grows(jet: Jet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: after a year without a restart the next one reads a year."""
    monkeypatch.setattr(open_sessions, "EVERY_EVENTS", 5)
    monkeypatch.setattr(open_sessions, "LOOK_S", 0.02)
    async with known(jet) as directory:
        writer = OpenSessionsWriter(jet, directory.open_sessions, directory.ready)
        writing = asyncio.create_task(writer.run())
        await fill(jet, 3, first=FINISHED)
        await begin(jet, "open-1")
        async with asyncio.timeout(PATIENCE_S):
            async for _ in jet.follow(subjects.OPEN, [subjects.OPEN_HEAD]):
                if (await read_open(jet)).position >= directory.position - 5:
                    break
        writing.cancel()


def test_a_session_that_was_only_written_down_is_what_a_real_one_leaves() -> None:
    """Breaks: what `lucid bench --finished` measures is nothing that ever happens."""
    fast, slow = FinishedHost("host-1"), FinishedHost("host-1")
    for number in (7, 1_000_000, 12):
        name = f"finished-{number:07}"
        assert fast.finished(name, 10**15 + number) == slow.lines(slow.create(name, 10**15 + number))
