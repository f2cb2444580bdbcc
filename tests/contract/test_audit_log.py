"""The audit chain on a real server: many writers, lost acks, kills, a full stream, pages."""

import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from handlers.audit.chain import Walk
from infra.jetstream import Jet, connect
from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.errors import Conflict, LucidError, NoSpace, NotFound, Unavailable
from schemas.events.audit import AuditEntry
from streams.event_store import audit_log, topology
from streams.event_store.audit_log import AuditLog
from streams.event_store.audit_pages import AuditQuery, chain_lines, page
from streams.scheduling.clock import now_us
from tests.support.evidence.audit_acts import person
from tests.support.machine.waiting import PATIENCE_S
from tests.support.servers.killing import kill

ALICE = person("alice")


@pytest.fixture
async def audit(jet: Jet) -> AsyncIterator[AuditLog]:
    await topology.declare(jet, 1 << 30)
    audit = AuditLog(jet, now_us)
    yield audit
    await audit.close()


async def entries(jet: Jet) -> list[AuditEntry]:
    """The whole chain, which must hold."""
    walk, read = Walk(), []
    async for line in chain_lines(jet):
        entry = walk.take(line)
        assert entry is not None
        read.append(entry)
    walk.end()
    assert walk.findings == []
    assert Counter((entry.id, entry.phase) for entry in read).most_common(1)[0][1] == 1, "an entry is doubled"
    return read


async def test_a_request_is_in_the_chain_before_it_is_carried_out(audit: AuditLog, jet: Jet) -> None:
    """Breaks: a recording is shown, the power fails, and nobody knows that it was shown."""
    asked = await audit.asked(
        ALICE,
        "watch",
        "demo-01",
        "a complaint\nof a customer",
        uid=b"u" * 16,
        request="r 1",
        detail="track 0",
    )
    (entry,) = await entries(jet)
    assert (entry.phase, entry.who, entry.roles, entry.address) == ("asked", "alice", ("ADMIN",), "192.0.2.7")
    assert (entry.action, entry.session, entry.uid) == ("watch", "demo-01", (b"u" * 16).hex())
    assert (entry.reason, entry.request, entry.detail) == ("a complaint of a customer", "r_1", "track 0")
    assert entry.time_us == asked.time_us
    asked.outcome("ok", detail="77 bytes")
    asked.outcome("failed")
    await audit.close()
    _, after = await entries(jet)
    assert (after.phase, after.id, after.outcome, after.detail) == ("outcome", entry.id, "ok", "77 bytes")
    assert after.reason == ""


async def test_how_a_block_ended_is_its_outcome(audit: AuditLog, jet: Jet) -> None:
    """Breaks: a download that broke off counts as done, or a refused one as shown."""
    async with audit.looking(ALICE, "watch", "demo-01"):
        pass
    with pytest.raises(NotFound):
        async with audit.looking(ALICE, "watch", "demo-02"):
            raise NotFound("no such session", code="session.absent")
    with pytest.raises(Unavailable):
        async with audit.looking(ALICE, "watch", "demo-03"):
            raise Unavailable("away", code="nats.timeout")

    async def looking_on() -> None:
        async with audit.looking(ALICE, "watch", "demo-04"):
            await asyncio.sleep(PATIENCE_S)

    task = asyncio.create_task(looking_on())
    async with asyncio.timeout(PATIENCE_S):
        while len(await entries(jet)) < 7:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await audit.close()
    ended = {entry.session: (entry.outcome, entry.code) for entry in await entries(jet) if entry.outcome}
    assert ended == {
        "demo-01": ("ok", ""),
        "demo-02": ("refused", "session.absent"),
        "demo-03": ("failed", "nats.timeout"),
        "demo-04": ("failed", "cancelled"),
    }


async def test_requests_that_wait_together_share_a_message(audit: AuditLog, jet: Jet) -> None:
    """Breaks: each of 64 requests pays for a sync of its own."""
    asked = await asyncio.gather(*(audit.asked(ALICE, "stop", f"s{n}") for n in range(64)))
    for one in asked:
        one.outcome()
    await audit.close()
    assert len(await entries(jet)) == 128
    assert (await jet.info(subjects.AUDIT)).messages < 16


async def test_writers_of_several_processes_make_one_chain(server: NatsServer, audit: AuditLog) -> None:
    """Breaks: two services fork the chain, or one overwrites the other's entry."""
    jets = [await connect(server.url, name=f"w{n}", timeout_s=PATIENCE_S) for n in range(4)]
    logs = [AuditLog(jet, now_us) for jet in jets]

    async def write(number: int) -> None:
        asked = await logs[number % 4].asked(ALICE, "stop", f"s{number}")
        asked.outcome()

    await asyncio.gather(*(write(number) for number in range(64)))
    await asyncio.gather(*(log.close() for log in logs))
    assert len(await entries(jets[0])) == 128
    await asyncio.gather(*(jet.close() for jet in jets))


class LosingJet:
    """A connection that stores what it is given and then fails, each `every`th time; or stores nothing."""

    def __init__(self, jet: Jet, error: LucidError, stored: bool) -> None:
        self._jet, self._error, self._stored, self.appends = jet, error, stored, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._jet, name)

    async def append(
        self, subject: str, data: bytes, expected_seq: int, headers: Mapping[str, str] | None = None
    ) -> int:
        self.appends += 1
        if self.appends % 2 == 0:
            return await self._jet.append(subject, data, expected_seq, headers)
        if self._stored:
            await self._jet.append(subject, data, expected_seq, headers)
        raise self._error


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize(
    "error", [Unavailable("timeout", code="t.t"), Conflict("wrong last sequence", code="append.conflict")]
)
async def test_an_entry_whose_ack_was_lost_is_found_and_not_repeated(
    audit: AuditLog, jet: Jet, error: LucidError, stored: bool
) -> None:
    """Breaks: after a timeout an entry stands twice, or not at all."""
    losing = AuditLog(LosingJet(jet, error, stored), now_us)  # type: ignore[arg-type]
    for number in range(6):
        other = await audit.asked(ALICE, "stop", f"other-{number}")
        asked = await losing.asked(ALICE, "stop", f"s{number}")
        asked.outcome()
        other.outcome()
    await losing.close()
    await audit.close()
    assert len(await entries(jet)) == 24


async def writer(server: NatsServer, name: str, requests: int) -> asyncio.subprocess.Process:
    command = (
        sys.executable,
        "-m",
        "tests.support.program.audit_writer",
        server.url,
        name,
        "32",
        str(requests),
    )
    return await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)


async def test_two_processes_that_are_killed_lose_no_entry_and_fork_nothing(
    server: NatsServer, audit: AuditLog, jet: Jet
) -> None:
    """Breaks: after a kill -9 a request that was carried out is not in the chain, or the chain is two."""
    randomly, durable = random.Random(11), list[str]()
    for round_ in range(3):
        pair = [await writer(server, f"w{round_}{one}", 20) for one in "ab"]
        killed_after, closed = [randomly.randrange(1, 400), 10**9], 0
        if round_ == 2:
            killed_after = [10**9, 10**9]

        async def follow(process: asyncio.subprocess.Process, most: int) -> int:
            assert process.stdout is not None
            count = 0
            async for raw in process.stdout:
                words = raw.decode().split()
                if words[0] == "closed":
                    return 1
                durable.append(words[1])
                count += 1
                if count == most:
                    process.kill()
            return 0

        async with asyncio.timeout(PATIENCE_S * 2):
            closed = sum(await asyncio.gather(*map(follow, pair, killed_after)))
            await asyncio.gather(*(process.wait() for process in pair))
        assert closed == (2 if round_ == 2 else 1)
    read = await entries(jet)
    asked = {entry.id.hex() for entry in read if entry.phase == "asked"}
    assert set(durable) <= asked
    assert len(durable) == len(set(durable))
    ended = {entry.id for entry in read if entry.phase == "outcome"}
    assert {entry.id for entry in read if entry.who.startswith(("w2", "w0b", "w1b"))} <= ended


async def test_a_killed_server_loses_no_entry_that_was_returned(
    server: NatsServer, audit: AuditLog, jet: Jet
) -> None:
    """Breaks: the broker restarts, and the look that was just shown never was."""
    returned: list[str] = []
    refused: set[str] = set()

    async def ask(number: int) -> None:
        for turn in range(8):
            try:
                asked = await audit.asked(ALICE, "stop", f"s{number}", request=str(turn))
            except Unavailable as error:
                refused.add(error.code)
                continue
            returned.append(asked.id)
            asked.outcome()

    asking = asyncio.gather(*(ask(number) for number in range(16)))
    await kill(server)
    await asking
    await audit.close(PATIENCE_S)
    assert refused <= {"audit.away"}
    read = await entries(jet)
    assert set(returned) <= {entry.id.hex() for entry in read if entry.phase == "asked"}
    assert set(returned) <= {entry.id.hex() for entry in read if entry.phase == "outcome"}


async def test_a_full_stream_refuses_requests_and_still_takes_outcomes(server: NatsServer, jet: Jet) -> None:
    """Breaks: the log is full, and things are done unrecorded; or what was begun never gets its outcome."""
    await topology.declare(jet, 16 << 20)
    audit = AuditLog(jet, now_us)
    begun = [await audit.asked(ALICE, "destroy", f"begun-{n}") for n in range(8)]

    async def fill() -> None:
        for number in range(2000):
            (await audit.asked(ALICE, "destroy", f"s{number}", reason="x" * 400)).outcome()

    with pytest.raises(NoSpace) as refused:
        await fill()
    assert refused.value.code == "audit.full"
    (await audit.asked(ALICE, "stop", "a-recording")).outcome()  # to end a recording needs no free disk
    for one in begun:
        one.outcome()
    await audit.close()
    read = await entries(jet)
    assert sum(entry.session.startswith("begun") for entry in read) == 16
    assert [entry.phase for entry in read if entry.session == "a-recording"] == ["asked", "outcome"]


async def test_notes_of_hosts_leave_room_for_persons(jet: Jet) -> None:
    """Breaks: one hostile host fills the log, and no person can do or see anything any more."""
    await topology.declare(jet, 128 << 20)
    audit, host = AuditLog(jet, now_us), replace(ALICE, subject="host:rdp-01" + "x" * 180, host="rdp-01")
    most = (await jet.info(subjects.AUDIT)).max_bytes
    for _ in range(most // 400 // 64):  # an entry has more than 400 bytes
        for number in range(64):
            audit.note(host, "abort", f"s{number}")
        async with asyncio.timeout(PATIENCE_S):
            while audit._writer.waiting:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
    await audit.close()
    assert most * 0.7 < (await jet.info(subjects.AUDIT)).bytes < most * 0.85
    persons = AuditLog(jet, now_us)
    (await persons.asked(ALICE, "destroy", "a-session")).outcome()
    await persons.close()
    assert [entry.phase for entry in await entries(jet) if entry.session == "a-session"] == [
        "asked",
        "outcome",
    ]


async def test_without_its_stream_nothing_is_asked(jet: Jet, audit: AuditLog) -> None:
    """Breaks: a command is carried out although its entry went nowhere."""
    await jet.request(f"$JS.API.STREAM.DELETE.{subjects.AUDIT}", b"")
    with pytest.raises(Unavailable) as refused:
        await audit.asked(ALICE, "stop", "s")
    assert refused.value.code == "audit.away"


async def test_a_caller_that_gives_up_leaves_the_others_alone(audit: AuditLog, jet: Jet) -> None:
    """Breaks: one client that hangs up takes the entries of all others with it."""
    asking = [asyncio.create_task(audit.asked(ALICE, "stop", f"s{n}")) for n in range(8)]
    await asyncio.sleep(0)
    for task in asking[::2]:
        task.cancel()
    done = await asyncio.gather(*asking, return_exceptions=True)
    for one in done[1::2]:
        assert isinstance(one, audit_log.Asked)
    named = {entry.session for entry in await entries(jet)}
    assert {"s1", "s3", "s5", "s7"} <= named


async def test_garbage_in_the_chain_is_shown_and_stops_nobody(jet: Jet, audit: AuditLog) -> None:
    """Breaks: one foreign message, and no command is answered any more."""
    await audit.asked(ALICE, "stop", "before")
    await jet.publish(subjects.AUDIT_CHAIN, b"garbage")
    await audit.asked(ALICE, "stop", "after")
    await jet.publish(subjects.AUDIT_CHAIN, b"more garbage")
    later = AuditLog(jet, now_us)
    await later.asked(ALICE, "stop", "later")
    walk = Walk()
    async for line in chain_lines(jet):
        walk.take(line)
    assert [(finding.code, finding.number) for finding in walk.findings] == [
        ("audit.form", 2),
        ("audit.form", 4),
    ]


async def test_a_purged_chain_shows_its_missing_beginning(jet: Jet, audit: AuditLog) -> None:
    """Breaks: who removes the past entries gets a chain that looks new and whole."""
    await audit.asked(ALICE, "stop", "before")
    await jet.purge(subjects.AUDIT, subjects.AUDIT_CHAIN)
    await audit.asked(ALICE, "stop", "after")
    walk = Walk()
    async for line in chain_lines(jet):
        walk.take(line)
    assert [finding.code for finding in walk.findings] == ["audit.hole"]


async def test_pages_show_every_entry_once_in_both_orders(jet: Jet, audit: AuditLog) -> None:
    """Breaks: an auditor who pages through the log misses an entry, or sees one twice."""
    for round_ in range(12):
        await asyncio.gather(*(audit.asked(ALICE, "stop", f"s{round_}-{n}") for n in range(round_ + 1)))
        await jet.publish(subjects.grants("s", f"{round_:016x}"), b"{}")  # other messages lie between
    total = 12 * 13 // 2
    for newest_first in (False, True):
        numbers, after = list[int](), 0
        while True:
            found = await page(jet, AuditQuery(after=after, limit=7, newest_first=newest_first))
            numbers += [entry["number"] for entry in found["entries"]]
            after = found["next"]
            if not after:
                break
        assert numbers == (list(range(1, total + 1)) if not newest_first else list(range(total, 0, -1)))


async def test_a_page_shows_only_what_was_asked_for(jet: Jet, audit: AuditLog) -> None:
    """Breaks: a filter leaves out an entry that fits, or lets one in that does not."""
    for who, action, session in (("alice", "stop", "a"), ("bob", "stop", "b"), ("bob", "watch", "a")):
        (await audit.asked(person(who), action, session)).outcome("failed" if who == "bob" else "ok")
    await audit.close()
    middle = [entry.at_us for entry in await entries(jet)][3]
    for asked, count in (
        ({"who": "bob"}, 4),
        ({"who": "bob", "session": "a"}, 2),
        ({"action": "stop"}, 4),
        ({"outcome": "failed"}, 2),
        ({"since_us": middle}, None),
        ({"until_us": middle}, None),
        ({"session": "nobody"}, 0),
    ):
        found = (await page(jet, AuditQuery.model_validate(asked)))["entries"]
        wanted = [json.loads(line) async for line in chain_lines(jet)]
        for name, value in asked.items():
            if name == "since_us":
                wanted = [entry for entry in wanted if entry["at_us"] >= value]
            elif name == "until_us":
                wanted = [entry for entry in wanted if entry["at_us"] < value]
            else:
                wanted = [entry for entry in wanted if entry[name] == value]
        assert found == wanted
        assert count is None or len(found) == count
