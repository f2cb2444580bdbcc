"""Requests of a second person, and the one door for looks, on a real server."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from handlers.access.grants import Access
from infra.jetstream import Jet
from schemas import subjects
from schemas.access import Caller, Role
from schemas.errors import Denied, Misuse, RefusedByState
from schemas.events.access import AnswerAccess, Look, RequestAccess, access_key
from streams.event_store import topology
from streams.event_store.access_log import AccessLog
from streams.event_store.audit_log import AuditLog
from streams.event_store.audit_pages import AuditQuery, page
from streams.event_store.looks import AccessPolicy, Looks
from tests.support.evidence.audit_acts import person

HOUR_US = 3600 * 10**6
ALICE, BOB = person("alice", Role.AUDITOR), person("bob")


class HandClock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now_us = 10**15

    def __call__(self) -> int:
        return self.now_us


class Office:
    """Looks under a policy of four eyes, and the two persons."""

    def __init__(self, jet: Jet) -> None:
        self.clock = HandClock()
        self.audit = AuditLog(jet, self.clock)
        self.log = AccessLog(jet)
        watched = frozenset({"watch"})
        self.looks = Looks(self.audit, self.log, AccessPolicy(watched, watched), self.clock)

    async def request(self, session: str = "demo-01", look: Look = "watch") -> Access:
        asked = await self.audit.asked(ALICE, "access_request", session)
        command = RequestAccess(
            who="alice", at_us=asked.time_us, cause=asked.id, session=session, look=look, reason="ticket 7",
            ends_us=asked.time_us + 24 * HOUR_US,
        )  # fmt: skip
        return await self.log.execute(session, access_key("alice", look), command)

    async def approve(self, access: Access, who: Caller = BOB) -> Access:
        asked = await self.audit.asked(who, "access_approve", access.session)
        command = AnswerAccess(
            who=who.subject, at_us=asked.time_us, cause=asked.id, number=access.number, approve=True,
            until_us=asked.time_us + HOUR_US,
        )  # fmt: skip
        return await self.log.execute(access.session, access.key, command)

    async def watch(self, reason: str = "ticket 7", session: str = "demo-01") -> None:
        async with self.looks.look(ALICE, "download", session, reason):
            pass


@pytest.fixture
async def office(jet: Jet) -> AsyncIterator[Office]:
    await topology.declare(jet, 1 << 30)
    office = Office(jet)
    yield office
    await office.audit.close()


async def test_a_look_needs_a_reason_and_a_second_person_and_each_step_is_recorded(
    office: Office, jet: Jet
) -> None:
    """Breaks: policy asks for four eyes, and two are enough; or nobody can tell who allowed it."""
    with pytest.raises(Misuse) as refused:
        await office.watch(reason=" ")
    assert refused.value.code == "access.reason"
    with pytest.raises(Denied) as needed:
        await office.watch()
    assert needed.value.code == "access.needed"
    access = await office.request()
    with pytest.raises(Denied):
        await office.watch()
    with pytest.raises(Denied):
        await office.approve(access, ALICE)
    await office.approve(access)
    await office.watch()
    with pytest.raises(Denied):
        await office.watch(session="demo-02")
    await office.audit.close()
    found = (await page(jet, AuditQuery(action="download")))["entries"]
    assert [(entry["outcome"], entry["code"]) for entry in found if entry["phase"] == "outcome"] == [
        ("refused", "access.reason"), ("refused", "access.needed"), ("refused", "access.unanswered"),
        ("ok", ""), ("refused", "access.needed"),
    ]  # fmt: skip
    steps = (await page(jet, AuditQuery(action="access_approve")))["entries"]
    assert [entry["who"] for entry in steps] == ["alice", "bob"]


async def test_a_look_under_way_ends_with_its_grant(office: Office) -> None:
    """Breaks: an approval that was for an hour shows a recording for as long as its download takes."""
    assert office.looks.needs_grant("download")
    assert not office.looks.needs_grant("export_evidence")
    await office.approve(await office.request())
    async with office.looks.look(ALICE, "download", "demo-01", "ticket 7"):
        await office.looks.still(ALICE, "download", "demo-01")
        office.clock.now_us += HOUR_US + 10**6
        with pytest.raises(Denied) as ended:
            await office.looks.still(ALICE, "download", "demo-01")
        assert ended.value.code == "access.ended"


async def test_a_clock_that_is_set_back_prolongs_no_grant(office: Office) -> None:
    """Breaks: an hour's grant lasts for two, because somebody turned the clock."""
    await office.approve(await office.request())
    office.clock.now_us += HOUR_US - 10**6
    await office.watch()
    office.clock.now_us -= HOUR_US - 10**6  # the clock shows again the minute of the approval
    await office.watch()
    office.clock.now_us += 2 * 10**6
    with pytest.raises(Denied) as refused:
        await office.watch()
    assert refused.value.code == "access.ended"


async def test_of_many_requests_at_once_one_is_taken(office: Office, jet: Jet) -> None:
    """Breaks: one person has two requests for one thing, and a refusal of the first counts for nothing."""
    done = await asyncio.gather(*(office.request() for _ in range(16)), return_exceptions=True)
    assert [type(one) for one in done].count(Access) == 1
    assert {type(one) for one in done} == {Access, RefusedByState}
    assert (await jet.info(subjects.AUDIT)).subjects == 2


async def test_of_many_answers_at_once_one_counts(office: Office) -> None:
    """Breaks: a grant is given twice, each time for another hour."""
    access = await office.request()
    done = await asyncio.gather(
        *(office.approve(access, person(f"admin-{n}")) for n in range(16)), return_exceptions=True
    )
    approved = [one for one in done if isinstance(one, Access)]
    assert len(approved) == 1
    assert (await office.log.load(access.session, access.key)).answered_by == approved[0].answered_by


async def test_requests_are_listed_page_by_page(office: Office) -> None:
    """Breaks: an approver does not see a request that waits."""
    for number in range(5):
        access = await office.request(f"s{number}")
        if number % 2:
            await office.approve(access)
    now_us = office.clock.now_us
    listed = await office.log.page(now_us)
    assert [one["session"] for one in listed["requests"]] == [f"s{n}" for n in range(5)]
    waiting = await office.log.page(now_us, stage="ASKED")
    assert [one["session"] for one in waiting["requests"]] == ["s0", "s2", "s4"]
    (one,) = (await office.log.page(now_us, session="s1"))["requests"]
    assert (one["stage"], one["answered_by"], one["requester"]) == ("GRANTED", "bob", "alice")
    assert (await office.log.page(now_us, requester="bob"))["requests"] == []


async def test_a_foreign_message_among_the_requests_stops_nobody(office: Office, jet: Jet) -> None:
    """Breaks: one bad line, and nobody may look any more, or everybody may."""
    await jet.publish(subjects.grants("demo-01", access_key("alice", "watch")), b"garbage")
    with pytest.raises(Denied):
        await office.watch()
    await office.approve(await office.request())
    await office.watch()


async def test_destroyed_sessions_keep_their_requests(office: Office, jet: Jet) -> None:
    """Breaks: with the session goes the answer to who allowed to watch it."""
    await office.approve(await office.request())
    for stream in (subjects.LIFECYCLE, subjects.CHUNKS):
        await jet.purge(stream, ">")
    assert len((await office.log.page(office.clock.now_us))["requests"]) == 1
