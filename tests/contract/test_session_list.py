"""The list of all sessions: pages, filters, a list that is made anew; on a real server and a real file."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from infra.jetstream import Jet
from infra.read_models.sqlite import SqliteViews
from schemas import subjects
from schemas.errors import Unavailable
from schemas.events import commands
from schemas.ports.read_models import SessionQuery, SessionRow
from streams.event_store import topology
from streams.event_store.session_log import SessionLog
from streams.projections import session_list
from streams.projections.session_list import SessionList
from tests.support.machine.waiting import PATIENCE_S
from tests.support.servers.open_log import begin, fill, order

FINISHED = 60


@pytest.fixture(autouse=True)
async def _log(jet: Jet) -> None:
    await topology.declare(jet, 2 << 30)


async def at_once() -> None:
    """Commands can be answered."""


@asynccontextmanager
async def listing(jet: Jet, path: Path) -> AsyncIterator[SessionList]:
    listed = SessionList(jet, SqliteViews(path), at_once)
    running = asyncio.create_task(listed.run())
    try:
        yield listed
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def complete(listed: SessionList, **asked: Any) -> dict[str, Any]:
    """A page, once the list knows the whole log."""
    async with asyncio.timeout(PATIENCE_S):
        while (page := await listed.page(asked))["behind"]:  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.02)
    return page


def names(page: dict[str, Any]) -> list[str]:
    return [one["session"] for one in page["sessions"]]


async def test_pages_are_complete_and_disjoint_while_sessions_are_added(jet: Jet, tmp_path: Path) -> None:
    """Breaks: who pages through the sessions of a year misses some, or meets some twice."""
    await fill(jet, FINISHED)
    async with listing(jet, tmp_path / "v") as listed:
        page = await complete(listed, limit=7)
        seen, number = names(page), 0
        while page["next"]:
            await begin(jet, f"new-{number}", f"new-host-{number}")
            number += 1
            page = await listed.page({"limit": 7, "after": page["next"]})
            seen += names(page)
        assert seen == [f"finished-{n:07}" for n in reversed(range(FINISHED))]
        newest = await complete(listed, limit=500)
        assert names(newest)[:number] == [f"new-{n}" for n in reversed(range(number))]
        assert len(newest["sessions"]) == FINISHED + number


async def test_what_was_just_created_is_listed(jet: Jet, tmp_path: Path) -> None:
    """Breaks: who starts a recording does not find it in the list."""
    async with listing(jet, tmp_path / "v") as listed:
        assert (await listed.page({}))["sessions"] == []
        for number in range(5):
            await begin(jet, f"s-{number}", f"host-{number}")
            page = await listed.page({})
            assert (names(page)[0], page["behind"]) == (f"s-{number}", 0)


async def test_a_list_is_filtered_by_state_host_and_name(jet: Jet, tmp_path: Path) -> None:
    """Breaks: the one recording that matters is looked for by hand among a hundred thousand."""
    await fill(jet, FINISHED)
    await begin(jet, "desk-7", "h7")
    async with listing(jet, tmp_path / "v") as listed:
        assert len(names(await complete(listed, state="STOPPED"))) == FINISHED
        assert names(await listed.page({"state": "STARTING"})) == ["desk-7"]
        assert names(await listed.page({"host": "h7"})) == ["desk-7"]
        assert len(names(await listed.page({"host": "host-0001"}))) == FINISHED // 3
        assert names(await listed.page({"text": "sk-"})) == ["desk-7"]
        assert names(await listed.page({"host": "host-0001", "text": "0000004"})) == ["finished-0000004"]
        assert names(await listed.page({"host": "' OR 1=1 --"})) == []
        assert not (await listed.page({"state": "STARTING", "host": "host-0001"}))["sessions"]


async def test_a_list_goes_on_where_it_stood(jet: Jet, tmp_path: Path) -> None:
    """Breaks: a session that changed while nothing ran is listed as it was, or twice."""
    await fill(jet, FINISHED)
    async with listing(jet, tmp_path / "v") as listed:
        await complete(listed)
    await SessionLog(jet).execute(order(commands.Cleanup, "finished-0000001"))
    async with listing(jet, tmp_path / "v") as listed:
        page = await complete(listed, limit=500)
        assert len(page["sessions"]) == FINISHED
        assert names(await listed.page({"state": "CLEANUP"})) == ["finished-0000001"]


@pytest.mark.parametrize("lost", ["file", "garbage", "version", "other log", "older log"])
async def test_a_list_that_is_lost_or_of_another_log_is_made_anew(
    jet: Jet, tmp_path: Path, lost: str
) -> None:
    """Breaks: one damaged file, and nobody can list his sessions; or he is shown another system's."""
    await fill(jet, FINISHED)
    path = tmp_path / "v"
    async with listing(jet, path) as listed:
        await complete(listed)
    with sqlite3.connect(path) as db:
        match lost:
            case "file":
                path.unlink()
            case "version":
                db.execute("PRAGMA user_version = 999")
            case "other log":
                db.execute("UPDATE place SET log_id = 'another', position = 5")
                db.execute("UPDATE sessions SET session = 'foreign'")
            case "older log":
                db.execute("UPDATE place SET position = 1000000")
                db.execute("UPDATE sessions SET state = 'LATER'")
    db.close()
    if lost == "garbage":
        path.write_bytes(b"no database" * 1000)
    async with listing(jet, path) as listed:
        page = await complete(listed, limit=500)
        assert {one["state"] for one in page["sessions"]} == {"STOPPED"}
        assert len(page["sessions"]) == FINISHED
        assert "foreign" not in names(page)


async def test_a_list_that_is_made_anew_says_what_it_lacks(
    jet: Jet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a session that is not listed yet is taken for one that never was."""
    monkeypatch.setattr(session_list, "NEAR_EVENTS", 0)
    await fill(jet, FINISHED)
    listed = SessionList(jet, SqliteViews(tmp_path / "v"), at_once)
    page = await listed.page({})
    last = await jet.last(subjects.LIFECYCLE, subjects.ALL_LIFECYCLE)
    assert last is not None
    assert (page["sessions"], page["behind"]) == ([], last.seq)


def row(number: int, seq: int, state: str = "STOPPED") -> SessionRow:
    return SessionRow(number, seq, f"s-{number}", state, "h", {"session": f"s-{number}", "state": state})


def test_an_older_row_never_overwrites_a_newer_one(tmp_path: Path) -> None:
    """Breaks: of two conductors over one folder the slower one takes the list back."""
    fast, slow = SqliteViews(tmp_path / "v"), SqliteViews(tmp_path / "v")
    assert (fast.begin("log"), slow.begin("log")) == (0, 0)
    fast.apply([row(1, 9, "DESTROYED"), row(2, 10)], 10)
    slow.apply([row(1, 3, "ACTIVE")], 3)
    assert [shown["state"] for _, shown in slow.sessions(SessionQuery())] == ["STOPPED", "DESTROYED"]
    assert slow.begin("log") == 10
    assert slow.begin("other") == 0
    assert not fast.sessions(SessionQuery())


def test_rows_and_their_place_change_together_or_not_at_all(tmp_path: Path) -> None:
    """Breaks: a crash leaves a session out of the list for good."""
    views = SqliteViews(tmp_path / "v")
    views.begin("log")
    broken: Any = SessionRow(3, 5, "s-3", "S", "h", {"session": object()})
    with pytest.raises(TypeError):
        views.apply([row(1, 4), broken], 5)
    with sqlite3.connect(tmp_path / "v") as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match=r"views\.failed"):
            SqliteViews(tmp_path / "v", busy_s=0.1).apply([row(1, 4)], 4)
    other.close()
    assert (views.begin("log"), views.sessions(SessionQuery())) == (0, [])
