"""The list of all sessions: pages, filters, a list that is made anew; on a real server and a real file."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from handlers.crypto.blind_index import BlindIndex
from infra.jetstream import Jet
from infra.keys.master import Keyring
from infra.keys.session_keys import DiskKeyFiles
from infra.read_models.sqlite import SqliteViews
from schemas import subjects
from schemas.errors import Misuse, Unavailable
from schemas.events import commands
from streams.event_store import topology
from streams.event_store.session_log import SessionLog
from streams.keys.keystore import KeyStore
from streams.projections import session_list
from streams.projections.projector import Documents, Projector
from streams.projections.session_list import SessionList
from tests.support.machine.waiting import PATIENCE_S
from tests.support.servers.open_log import begin, fill, order

FINISHED = 60


@pytest.fixture(autouse=True)
async def _log(jet: Jet) -> None:
    await topology.declare(jet, 2 << 30)


async def at_once() -> None:
    """Commands can be answered."""


def unprojected(jet: Jet, path: Path, secret: str = "") -> tuple[SessionList, Projector]:
    """A list whose projector does not run yet."""
    views, index = SqliteViews(path), BlindIndex(bytes(32), secret)
    keys = KeyStore(DiskKeyFiles(path.parent / "keys" / "sessions"), Keyring(path.parent / "keys"))
    listed = SessionList(jet, views, keys, index)
    return listed, Projector(jet, views, Documents(keys, index), at_once)


@asynccontextmanager
async def listing(jet: Jet, path: Path) -> AsyncIterator[SessionList]:
    listed, projector = unprojected(jet, path)
    running = asyncio.create_task(projector.run())
    try:
        yield listed
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def complete(listed: SessionList, **asked: Any) -> dict[str, Any]:
    """A page, once the list knows the whole log."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with suppress(Unavailable):  # the projector has not replaced a damaged file yet
                page = await listed.page(asked)
                if not page["behind"]:
                    return page
            await asyncio.sleep(0.02)


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
                db.execute("UPDATE generations SET source = 'another', position = 5")
                db.execute("UPDATE documents_1 SET session = 'foreign', shown = '{}'")
            case "older log":
                db.execute("UPDATE generations SET position = 1000000")
                db.execute("UPDATE documents_1 SET state = 'LATER', shown = '{}'")
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
    listed, _ = unprojected(jet, tmp_path / "v")
    page = await listed.page({})
    last = await jet.last(subjects.LIFECYCLE, subjects.ALL_LIFECYCLE)
    assert last is not None
    assert (page["sessions"], page["behind"]) == ([], last.seq)


async def test_a_cursor_goes_on_where_its_page_ended(jet: Jet, tmp_path: Path) -> None:
    """Breaks: who sorts a list by anything but its beginning cannot read its second page."""
    await fill(jet, FINISHED)
    async with listing(jet, tmp_path / "v") as listed:
        await complete(listed)
        for sort in ("created", "moved", "started", "size", "duration"):
            asked: dict[str, Any] = {"sort": sort, "descending": False, "limit": 7}
            page = await listed.page(asked)
            seen = names(page)
            while page["cursor"]:
                page = await listed.page({**asked, "cursor": page["cursor"]})
                seen += names(page)
            assert sorted(seen) == [f"finished-{n:07}" for n in range(FINISHED)]


async def test_a_forged_cursor_is_refused(jet: Jet, tmp_path: Path) -> None:
    """Breaks: a cursor that somebody made up ends the service, or shows other pages than the list has."""
    await fill(jet, FINISHED)
    async with listing(jet, tmp_path / "v") as listed:
        await complete(listed)
        cursor = (await listed.page({"limit": 7}))["cursor"]
        forged = ("x", "=", "A" * 46, cursor[:-1], cursor[:5] + "Z" + cursor[6:], "\u2713", cursor + "AAAA")
        for one in forged:
            with pytest.raises(Misuse, match=r"list\.cursor"):
                await listed.page({"limit": 7, "cursor": one})
        for other in ({"sort": "moved"}, {"descending": False}):
            with pytest.raises(Misuse, match=r"list\.cursor"):
                await listed.page({**other, "cursor": cursor})


async def test_a_cursor_is_signed_with_the_secret_that_is_set(jet: Jet, tmp_path: Path) -> None:
    """Breaks: SECRET_KEY is asked for in production and signs nothing."""
    await fill(jet, FINISHED)
    async with listing(jet, tmp_path / "v") as listed:
        await complete(listed)
        unset = (await listed.page({"limit": 7}))["cursor"]
        one, other = (unprojected(jet, tmp_path / "v", secret)[0] for secret in ("a" * 32, "b" * 32))
        cursor = (await one.page({"limit": 7}))["cursor"]
        assert names(await one.page({"cursor": cursor})) == names(await listed.page({"cursor": unset}))
        for theirs in (unset, (await other.page({"limit": 7}))["cursor"]):
            with pytest.raises(Misuse, match=r"list\.cursor"):
                await one.page({"cursor": theirs})


async def test_the_sums_are_those_of_the_whole_log(jet: Jet, tmp_path: Path) -> None:
    """Breaks: an operator sees other numbers than the log has."""
    await fill(jet, FINISHED)
    await begin(jet, "desk-7", "h7")
    async with listing(jet, tmp_path / "v") as listed:
        await complete(listed)
        totals = await listed.totals({})
        assert (totals["sessions"], totals["behind"]) == (FINISHED + 1, 0)
        assert totals["states"]["STOPPED"]["sessions"] == FINISHED
        assert totals["chunks"] == totals["states"]["STOPPED"]["chunks"] > 0
        assert (await listed.totals({"host": "h7"}))["states"].keys() == {"STARTING"}
