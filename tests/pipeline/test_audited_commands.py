"""Commands and the audit chain, with a conductor over a real server: who asked, and how it ended."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from handlers.access.commands import COMMANDS
from infra.access.host_tokens import HostToken
from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.access import Role
from schemas.errors import Denied, LucidError, NotFound, Unavailable
from schemas.ports import no_token
from streams.control.auditor import REFUSALS_S, UNAUDITED
from streams.control.client import call
from streams.event_store.audit_pages import AuditQuery, chain_lines, page
from tests.support.pipeline.conducted import World, requested, system

QUESTIONS = {
    *("show", "where", "details", "list", "totals"),
    *("ping", "room", "running", "scrub", "signers", "audit", "access_list"),
}
RECORDED = {
    *("create", "open", "update", "start", "stop", "abort", "pause", "resume", "error", "recover", "redrive"),
    *("pause_pipeline", "resume_pipeline", "hold", "destroy", "rotate", "rotate_signer", "revoke_signer"),
    *("audit_head", "access_request", "access_approve", "access_refuse", "scrub_now", "scrub_acknowledge"),
}


@pytest.fixture
async def world(server: NatsServer, tmp_path: Path) -> AsyncIterator[World]:
    """A conductor that answers commands; the connection of its world sends the operator's token."""
    async with system(server, tmp_path, worker=False) as world:
        yield world


def token(world: World, *roles: Role, subject: str = "alice") -> Any:
    made = world.here.issuer.issue(subject, roles, 60)
    return lambda *_: made


async def rows(world: World, count: int, **asked: str) -> list[tuple[str, ...]]:
    """The entries, once there are so many."""

    async def read() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await page(world.jet, AuditQuery.model_validate(asked)))["entries"]
        return found

    found = await read()
    async with asyncio.timeout(30):
        while len(found) < count:
            await asyncio.sleep(0.02)
            found = await read()
    return [(one["who"], one["action"], one["phase"], one["outcome"], one["code"]) for one in found]


async def test_a_command_of_a_person_is_asked_and_ends_in_the_chain(world: World) -> None:
    """Breaks: a recording is stopped, and nobody can tell by whom."""
    await world.start("demo-01")
    alice = token(world, Role.ADMIN)
    body = {"session": "demo-01", "audit_reason": "ticket 7"}
    await call(world.jet, "pause", body, credential=alice)
    with pytest.raises(LucidError):
        await call(world.jet, "recover", {"session": "demo-01"}, credential=alice)
    assert await rows(world, 4, session="demo-01", who="alice") == [
        ("alice", "pause", "asked", "", ""),
        ("alice", "pause", "outcome", "ok", ""),
        ("alice", "recover", "asked", "", ""),
        ("alice", "recover", "outcome", "refused", "state.refused"),
    ]
    entries = (await page(world.jet, AuditQuery(action="pause")))["entries"]
    assert (entries[0]["reason"], entries[0]["roles"]) == ("ticket 7", ["ADMIN"])
    assert len(entries[0]["request"]) == 24


async def test_a_host_is_noted_and_does_not_wait(world: World) -> None:
    """Breaks: a host that starts is not in the chain; or it cannot record while the chain is full."""
    await world.start("demo-01")
    noted = await rows(world, 2, session="demo-01")
    assert [row[1:] for row in noted] == [
        ("create", "outcome", "ok", ""),
        ("start", "outcome", "ok", ""),
    ]
    await world.jet.request(f"$JS.API.STREAM.DELETE.{subjects.AUDIT}", b"")
    await world.start("demo-02")
    with pytest.raises(Unavailable) as away:
        await call(world.jet, "pause", {"session": "demo-02"}, credential=token(world, Role.ADMIN))
    assert away.value.code == "audit.away"
    assert (await world.ask("show", "demo-02"))["state"] == "ACTIVE", "it was done unrecorded"


async def test_a_refusal_at_the_door_is_recorded_and_floods_nothing(world: World) -> None:
    """Breaks: attempts leave no trace; or their number fills the chain and stops every command."""
    await world.start("demo-01")
    operator = token(world, Role.NODE_OPERATOR, subject="mallory")
    for _ in range(REFUSALS_S * 4):
        with pytest.raises(Denied):
            await call(world.jet, "hold", {"session": "demo-01", "held": True}, credential=operator)
    found = await rows(world, 1, who="mallory")
    assert set(found) == {("mallory", "hold", "outcome", "refused", "access.role")}
    assert len(found) < REFUSALS_S * 4
    with pytest.raises(LucidError):
        await call(world.jet, "hold", {"session": "demo-01"}, credential=no_token)
    raw = b"".join([line async for line in chain_lines(world.jet)])
    assert operator().encode() not in raw
    assert b"eyJ" not in raw, "a token stands in the chain"


async def test_an_unknown_host_whose_commands_fail_floods_nothing(world: World) -> None:
    """Breaks: whoever reaches the port makes a key, fills the chain, and stops every command of a person."""
    asked = requested("demo-01", 1).model_dump(mode="json") | {"request": "00" * 64}
    stranger = HostToken("host-1", Ed25519PrivateKey.from_private_bytes(b"h" * 32))
    began_s = time.monotonic()
    trying = [call(world.jet, "create", asked, credential=stranger) for _ in range(REFUSALS_S * 6)]
    answers = await asyncio.gather(*trying, return_exceptions=True)
    assert all(isinstance(answer, Denied) for answer in answers), answers
    seconds = int(time.monotonic() - began_s) + 2
    await call(world.jet, "rotate_signer", {}, credential=token(world, Role.SUPER_ADMIN))
    found = [row for row in await rows(world, 3) if row[0] == "host:host-1"]
    assert {row[1:4] for row in found} == {("create", "outcome", "refused")}
    assert len(found) <= REFUSALS_S * seconds


async def test_questions_leave_no_entry(world: World) -> None:
    """Breaks: a SIEM that polls the chain, or a script that polls `where`, feeds it without end."""
    await world.start("demo-01")
    await rows(world, 2, session="demo-01")
    for name in sorted(QUESTIONS):
        await call(world.jet, name, {"session": "demo-01"} if COMMANDS[name].session else {})
        with pytest.raises(Denied):  # neither does a refusal
            await call(world.jet, name, {"session": "demo-01"}, credential=token(world, Role.HOST))
    assert len(await rows(world, 2)) == 2
    await world.ask("stop", "demo-01")
    assert [row[1] for row in await rows(world, 4)][2:] == ["stop", "stop"]


def test_every_command_is_recorded_or_a_question() -> None:
    """Breaks: a new question fills the chain, or a new command leaves no entry, and nobody decided it."""
    assert RECORDED.isdisjoint(QUESTIONS)
    assert COMMANDS.keys() == RECORDED | QUESTIONS
    assert UNAUDITED == QUESTIONS


async def test_a_second_person_allows_and_a_user_sees_the_own_requests(world: World) -> None:
    """Breaks: four eyes cannot be had over the very service that asks for them."""
    await world.start("demo-01")
    alice, bob = token(world, Role.AUDITOR), token(world, Role.ADMIN, subject="bob")
    also_alice = token(world, Role.ADMIN)  # another token of the same person
    asked = {"session": "demo-01", "look": "watch", "reason": "ticket 7"}
    with pytest.raises(NotFound):
        await call(world.jet, "access_request", {**asked, "session": "nobody"}, credential=alice)
    made = await call(world.jet, "access_request", asked, credential=alice)
    assert made["stage"] == "ASKED"
    for credential, code in (
        (also_alice, "access.self"),
        (token(world, Role.AUDITOR, subject="carol"), "access.role"),
    ):
        with pytest.raises(Denied) as refused:
            await call(world.jet, "access_approve", {"request": made["id"]}, credential=credential)
        assert refused.value.code == code
    granted = await call(world.jet, "access_approve", {"request": made["id"]}, credential=bob)
    assert (granted["stage"], granted["answered_by"]) == ("GRANTED", "bob")
    assert granted["until_us"] - granted["answered_us"] == int(world.settings.grant_life_s * 10**6)
    ended = await call(world.jet, "access_refuse", {"request": made["id"], "reason": "done"}, credential=bob)
    assert ended["stage"] == "REFUSED"
    steps = [row for row in await rows(world, 9) if row[1].startswith("access_") and row[2] == "asked"]
    assert [row[:2] for row in steps] == [
        ("alice", "access_request"), ("alice", "access_request"), ("alice", "access_approve"),
        ("bob", "access_approve"), ("bob", "access_refuse"),
    ]  # fmt: skip
    for credential, count in ((alice, 1), (bob, 1), (token(world, Role.USER, subject="carol"), 0)):
        listed = await call(world.jet, "access_list", {}, credential=credential)
        assert len(listed["requests"]) == count


async def test_the_signed_end_is_refused_to_another_chain(world: World) -> None:
    """Breaks: an insider writes the past anew, and the installation signs it."""
    await call(world.jet, "rotate_signer", {}, credential=token(world, Role.SUPER_ADMIN))
    first = await call(world.jet, "audit_head", {})
    assert first["number"] >= 2
    assert (await call(world.jet, "audit_head", {}))["number"] > first["number"]
    await world.jet.purge(subjects.AUDIT, subjects.AUDIT_CHAIN)
    with pytest.raises(LucidError) as broken:
        await call(world.jet, "audit_head", {})
    assert broken.value.code == "audit.broken"
    assert (await call(world.jet, "audit_head", {"accept_break": True}))["number"] > first["number"]
