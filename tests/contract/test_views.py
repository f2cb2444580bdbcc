"""The port Views: each sentence of its contract, over SQLite and over a real server of MongoDB's protocol."""

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from infra.read_models.mongo import MongoViews
from schemas.errors import Conflict, Unavailable
from schemas.ports.read_models import SessionDocument, SessionFilter, SessionQuery, Sort, StateTotals, Views
from streams.scheduling.retry import retry
from tests.support.servers import view_samples
from tests.support.servers.secantus import Secantus
from tests.support.servers.stores import STORES, Opened, store

COUNT = 200


@pytest.fixture(params=STORES)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    """Opens one store, empty at first."""
    kind = str(request.param)
    server: Secantus | None = request.getfixturevalue("mongodb") if kind == "mongodb" else None
    return store(kind, tmp_path, server.url if server else "")


def one(number: int, seq: int, **more: Any) -> SessionDocument:
    return SessionDocument(number, seq, f"s-{number}", more.pop("state", "STOPPED"), "h", **more)


async def numbers(views: Views, **asked: Any) -> list[int]:
    return [found.number for found in (await views.sessions(SessionQuery(**asked))).documents]


async def test_an_older_document_never_replaces_a_newer_one(opened: Opened) -> None:
    """Breaks: of two projectors the slower one takes a session back to an earlier state."""
    fast, slow = opened(), opened()
    begun = await fast.begin("log")
    assert await slow.begin("log") == begun
    newer = one(1, 9, state="DESTROYED")
    await fast.apply(begun.number, [newer, one(2, 10, tokens=(b"t" * 12,))], 10)
    await slow.apply(begun.number, [one(1, 3, state="ACTIVE", tokens=(b"o" * 12,)), one(2, 10)], 3)
    page = await slow.sessions(SessionQuery())
    assert page.documents == [one(2, 10, tokens=(b"t" * 12,)), newer]
    assert page.generation == (begun.number, 10)
    assert await numbers(fast, filter=SessionFilter(tokens=(b"o" * 12,))) == []
    await asyncio.gather(fast.close(), slow.close())


async def test_documents_of_another_source_are_dropped(opened: Opened) -> None:
    """Breaks: a person is shown the sessions of another system, or searches with tokens of another key."""
    views = opened()
    first = await views.begin("log")
    await views.apply(first.number, [one(1, 9)], 9)
    other = await opened().begin("other")
    assert other.position == 0
    assert (await views.sessions(SessionQuery())).documents == []
    with pytest.raises(Conflict, match=r"views\.generation"):
        await views.apply(first.number, [one(1, 9)], 9)
    assert (await views.active()).number == other.number > first.number
    assert await views.count() == 0


async def test_a_position_never_goes_back(opened: Opened) -> None:
    """Breaks: events are asked for again, or a list says that it lacks what it contains."""
    views = opened()
    begun = await views.begin("log")
    await views.apply(begun.number, [], 7)
    await views.apply(begun.number, [], 3)
    assert await opened().begin("log") == (begun.number, 7)


async def test_a_second_call_changes_nothing(opened: Opened) -> None:
    """Breaks: after a lost answer the same session is listed twice."""
    views, made = opened(), view_samples.documents(COUNT)
    begun = await views.begin("log")
    for _ in range(2):
        await views.apply(begun.number, made, 99)
    assert await views.count() == COUNT
    found = (await views.sessions(SessionQuery(limit=COUNT + 1))).documents
    assert found == made[::-1]


@pytest.mark.parametrize("sort", Sort)
@pytest.mark.parametrize("descending", [True, False])
async def test_pages_are_complete_and_disjoint(opened: Opened, sort: Sort, descending: bool) -> None:
    """Breaks: a person who pages through a list misses sessions with equal times or sizes."""
    views, made = opened(), view_samples.documents(COUNT)
    await views.apply((await views.begin("log")).number, made, 99)
    query, seen = SessionQuery(sort=sort, descending=descending, limit=13), []
    while page := (await views.sessions(query)).documents:
        seen += page
        query = replace(query, after=view_samples.place_of(page[-1], sort))
    assert seen == sorted(made, key=lambda each: view_samples.place_of(each, sort), reverse=descending)


async def test_a_filter_finds_exactly_the_sessions_that_fit(opened: Opened) -> None:
    """Breaks: the one recording that matters is not found, or a stranger's is."""
    views, made = opened(), view_samples.documents(COUNT)
    await views.apply((await views.begin("log")).number, made, 99)

    def fits(each: SessionDocument, wanted: SessionFilter) -> bool:
        return (
            (not wanted.states or each.state in wanted.states)
            and (not wanted.host or each.host == wanted.host)
            and (not wanted.opened_by or each.opened_by == wanted.opened_by)
            and wanted.text in each.session
            and (wanted.from_us is None or each.created_us >= wanted.from_us)
            and (wanted.before_us is None or each.created_us < wanted.before_us)
            and (wanted.sealed is None or each.sealed == wanted.sealed)
            and set(wanted.tokens) <= set(each.tokens)
        )

    some = 0
    for query in view_samples.queries(150, made):
        wanted = [each.number for each in made if fits(each, query.filter)]
        found = await numbers(views, filter=query.filter, descending=False, limit=COUNT)
        assert found == wanted, query.filter
        totals = await views.totals(query.filter)
        assert [each.state for each in totals] == sorted({made[number - 1].state for number in wanted})
        assert sum(each.sessions for each in totals) == len(wanted)
        some += 0 < len(wanted) < COUNT
    assert some > 50


async def test_sums_are_those_of_all_sessions_of_a_state(opened: Opened) -> None:
    """Breaks: an operator is told a wrong number of sessions or bytes."""
    views, made = opened(), view_samples.documents(COUNT)
    assert await views.totals(SessionFilter()) == []
    await views.apply((await views.begin("log")).number, made, 99)
    stopped = [each for each in made if each.state == "STOPPED"]
    assert StateTotals(
        "STOPPED",
        len(stopped),
        sum(each.chunks for each in stopped),
        sum(each.plain_bytes for each in stopped),
        sum(each.sealed_bytes for each in stopped),
        sum(each.duration_us for each in stopped),
    ) in await views.totals(SessionFilter())


async def test_sums_beyond_any_disk_are_no_error(tmp_path: Path) -> None:
    """Breaks: a few forged events with huge numbers, and no statistics are answered any more."""
    views = store("sqlite", tmp_path, "")()  # MongoDB's sums go on as floating-point numbers
    huge = [one(number, number, plain_bytes=2**53 - 1) for number in range(1, 1101)]
    await views.apply((await views.begin("log")).number, huge, 1)
    (found,) = await views.totals(SessionFilter())
    assert found.plain_bytes == 1100 * (2**53 - 1)


async def test_one_session_is_found_by_its_name(opened: Opened) -> None:
    """Breaks: a session is shown under the name of another one."""
    views, made = opened(), view_samples.documents(20)
    assert await views.session(made[3].session) is None
    await views.apply((await views.begin("log")).number, made, 99)
    assert await views.session(made[3].session) == made[3]
    assert await views.session("s-nobody") is None


async def test_what_leaves_a_document_is_found_no_more(opened: Opened) -> None:
    """Breaks: a destroyed session is still found by its owner's name."""
    views = opened()
    begun = await views.begin("log")
    owner = view_samples.INDEX.owned_by("ada")
    await views.apply(begun.number, [one(1, 5, tokens=(owner,), details=b"sealed", revision=1)], 5)
    assert await numbers(views, filter=SessionFilter(tokens=(owner,))) == [1]
    await views.apply(begun.number, [one(1, 6, state="CLEANUP", revision=1)], 6)
    assert await numbers(views, filter=SessionFilter(tokens=(owner,))) == []
    assert await views.session("s-1") == one(1, 6, state="CLEANUP", revision=1)


async def test_the_old_generation_answers_until_the_new_one_is_complete(opened: Opened) -> None:
    """Breaks: while read models are made anew, people see half a list, or none."""
    views, builder = opened(), opened()
    old = await views.begin("log")
    await views.apply(old.number, [one(1, 5), one(2, 6)], 6)
    built = await builder.build("log")
    await builder.apply(built.number, [one(1, 5)], 5)
    assert await numbers(views) == [2, 1]
    assert not await builder.switch(built.number)
    await views.apply(old.number, [one(3, 7)], 7)
    await builder.apply(built.number, [one(2, 6), one(3, 7)], 7)
    assert await builder.switch(built.number)
    assert await builder.switch(built.number), "a second call does nothing"
    assert (await views.active()).number == built.number
    assert await numbers(views) == [3, 2, 1]
    with pytest.raises(Conflict, match=r"views\.generation"):
        await views.apply(old.number, [one(4, 8)], 8)
    assert await views.begin("log") == (built.number, 7)


async def test_a_rebuild_that_was_killed_leaves_the_old_generation(opened: Opened) -> None:
    """Breaks: a rebuild that dies half-way takes the list with it, or leaves its half in the store."""
    views, killed, again = opened(), opened(), opened()
    old = await views.begin("log")
    await views.apply(old.number, [one(1, 5)], 5)
    half = await killed.build("log")
    await killed.apply(half.number, [one(1, 4, state="ACTIVE")], 4)
    await killed.close()
    assert await views.begin("log") == (old.number, 5)
    built = await again.build("log")
    with pytest.raises(Conflict, match=r"views\.generation"):
        await killed.apply(half.number, [], 5)
    with pytest.raises(Conflict, match=r"views\.generation"):
        await killed.switch(half.number)
    await again.apply(built.number, [one(1, 5)], 5)
    assert await again.switch(built.number)
    assert await numbers(views) == [1]


async def test_many_writers_and_readers_agree(opened: Opened) -> None:
    """Breaks: processes that write the same documents at once lose some, or never end.

    A busy disk may keep SQLite's lock for longer than a writer waits: it asks again, as the projector does.
    """
    made = view_samples.documents(COUNT)
    several = [opened() for _ in range(4)]
    begun = await asyncio.gather(*(retry(partial(views.begin, "log")) for views in several))
    assert len(set(begun)) == 1

    async def write(views: Views, step: int) -> None:
        shuffled = made[step:] + made[:step]
        for start in range(0, COUNT, 50):
            await retry(partial(views.apply, begun[0].number, shuffled[start : start + 50], start))
            await retry(partial(views.sessions, SessionQuery()))

    await asyncio.gather(*(write(views, 37 * place) for place, views in enumerate(several)))
    assert (await several[0].sessions(SessionQuery(limit=500))).documents == made[::-1]


async def test_a_server_that_is_not_there_is_an_outage() -> None:
    """Breaks: while MongoDB restarts, the services end, or wait for ever, or tell its password."""
    views = MongoViews("mongodb://ada:secret@127.0.0.1:9/lucid", select_ms=50)
    with pytest.raises(Unavailable, match=r"views\.failed") as caught:
        await views.sessions(SessionQuery())
    assert "secret" not in str(caught.value)
    await views.close()
