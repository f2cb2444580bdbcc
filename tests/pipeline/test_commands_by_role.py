"""Who may send which command: every role and every command, over a real server."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from handlers.access.commands import COMMANDS
from handlers.access.permissions import Reach, reach
from infra.access.host_tokens import HostToken
from infra.jetstream import Jet, connect
from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.access import GIVEN_ROLES, Caller, Role
from schemas.errors import Denied, LucidError, NotFound, RefusedByState, Unauthenticated
from schemas.events.session import Created
from schemas.ports import no_token
from schemas.ports.access import NO_MEMBERS
from streams.control.client import call
from streams.event_store.session_log import SessionLog, read_event
from streams.host.session_start import start_session
from tests.support.pipeline.conducted import SETTINGS, Host, World, requested, system


@pytest.fixture
async def world(server: NatsServer, tmp_path: Path) -> AsyncIterator[World]:
    """A conductor that answers commands; the connection of its world sends the operator's token."""
    async with system(server, tmp_path, worker=False) as world:
        yield world


async def code(world: World, name: str, credential: Any, **body: Any) -> str:
    """The code of the refusal; empty: it was carried out."""
    try:
        await call(world.jet, name, body, credential=credential)
    except LucidError as error:
        return error.code
    return ""


def token(world: World, *roles: Role, subject: str = "alice", life_s: float = 60) -> Any:
    made = world.here.issuer.issue(subject, roles, life_s)
    return lambda *_: made


async def test_no_command_is_carried_out_without_a_token(world: World) -> None:
    """Breaks: everybody who reaches the server destroys sessions."""
    await world.start("demo-01")
    for name in COMMANDS:
        with pytest.raises(Unauthenticated) as missing:
            await call(world.jet, name, {"session": "demo-01"}, credential=no_token)
        assert (missing.value.code, "LUCID_TOKEN" in missing.value.hint) == ("access.missing", True)
        assert await code(world, name, lambda *_: "e30.e30.", session="demo-01") == "access.token"
    raw = await world.jet.request(subjects.command("destroy"), b'{"session": "demo-01"}')
    assert b"access.missing" in raw
    assert (await world.ask("show", "demo-01"))["state"] == "ACTIVE"


async def test_each_role_may_send_its_commands_and_no_others(world: World) -> None:
    """Breaks: the table says one thing and the service does another."""
    for role in GIVEN_ROLES:
        for name in sorted(set(COMMANDS) - {"rotate_signer", "rotate"}):
            said = await code(world, name, token(world, role), session="nobody")
            may = reach(Caller("alice", frozenset({role})), COMMANDS[name].permission) is not Reach.NONE
            assert (said != "access.role") is may, (role, name, said)
            assert said not in ("command.bug", "access.missing"), (role, name)
    for role in set(GIVEN_ROLES) - {Role.SUPER_ADMIN}:
        assert await code(world, "rotate", token(world, role)) == "access.role"
    assert await code(world, "rotate_signer", token(world, Role.SUPER_ADMIN)) == ""


async def test_a_user_finds_own_sessions_alone(world: World) -> None:
    """Breaks: a person lists, sees or stops the recordings of others."""
    alice, bob = token(world, Role.USER), token(world, Role.USER, subject="bob@lucid.example")
    await world.start("recorded-01")
    for credential, own in ((alice, "alice-01"), (bob, "bob-01")):
        await call(world.jet, "open", {"session": own, "who": "alice"}, credential=credential)
    for credential, own in ((alice, "alice-01"), (bob, "bob-01")):
        async with asyncio.timeout(30):
            while not (page := await call(world.jet, "list", {}, credential=credential))["sessions"]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert [one["session"] for one in page["sessions"]] == [own]
        page = await call(world.jet, "list", {"opened_by": "alice", "host": "host-1"}, credential=credential)
        assert page["sessions"] == []
        assert (await call(world.jet, "show", {"session": own}, credential=credential))["session"] == own
    told = set()
    for name in ("bob-01", "recorded-01", "absent-01"):
        with pytest.raises(NotFound) as absent:
            await call(world.jet, "show", {"session": name}, credential=alice)
        told.add((absent.value.message.replace(name, "NAME"), absent.value.code, absent.value.hint))
        assert await code(world, "abort", alice, session=name) == "session.absent"
        assert await code(world, "destroy", alice, session=name) == "session.absent"
    assert len(told) == 1


async def test_the_log_names_the_caller_of_the_token(world: World) -> None:
    """Breaks: a caller writes the name of another into the history."""
    await world.start("demo-01")
    credential = token(world, Role.NODE_OPERATOR, subject="bob@lucid.example")
    await call(world.jet, "pause", {"session": "demo-01", "who": "alice"}, credential=credential)
    events = [
        event
        async for message in world.jet.read_all(subjects.LIFECYCLE, subjects.lifecycle("demo-01"))
        if (event := read_event(message.data))
    ]
    by = [event.who for event in events if getattr(event, "trigger", "") == "PAUSE"]
    assert by == [Caller("bob@lucid.example", frozenset()).label]
    assert isinstance(events[0], Created)
    assert events[0].who == "host-1"
    written = [message.data async for message in world.jet.read_all(subjects.LIFECYCLE, ">")]
    assert not any(b"bob@" in data or b"eyJ" in data for data in written)


@pytest.fixture
async def bare(server: NatsServer) -> AsyncIterator[Jet]:
    """A connection without any token, as a recording host has it."""
    jet = await connect(server.url, name="host")
    yield jet
    await jet.close()


async def test_a_host_needs_no_token_but_its_key(world: World, bare: Jet) -> None:
    """Breaks: a recording host needs an account, or cannot end its recording."""
    grant = await start_session(bare, world.here.identity, "host-1", "demo-01", SETTINGS)
    host = Host(bare, grant)
    credential = host.grant.credential
    assert (await call(bare, "room", {"session": "demo-01"}, credential=credential))["data"] > 0
    assert (await call(bare, "show", {"session": "demo-01"}, credential=credential))["state"] == "ACTIVE"
    await host.record(1)
    with pytest.raises(Denied) as kept:
        await call(bare, "destroy", {"session": "demo-01"}, credential=credential)
    assert kept.value.code == "access.recorded"
    await call(bare, "abort", {"session": "demo-01", "reason": "interrupted"}, credential=credential)
    for name in ("hold", "recover", "signers", "rotate", "list", "details", "update"):
        assert await code(world, name, credential, session="demo-01", held=True) == "access.role"


async def test_a_host_reaches_no_session_of_another(world: World, bare: Jet) -> None:
    """Breaks: one host ends the recordings of all others."""
    await world.start("first-01", "host-1")
    second = await world.start("second-01", "host-2")
    mine = second.grant.credential
    for name in ("start", "stop", "abort", "pause", "show", "destroy"):
        assert await code(world, name, mine, session="first-01") == "session.absent"
    key = Ed25519PrivateKey.generate()
    for name in ("start", "abort", "show", "ping", "room"):
        assert await code(world, name, HostToken("host-1", key), session="first-01") == "access.host_key"
        assert await code(world, name, HostToken("host-3", key), session="first-01") == "access.host_key"
    body = requested("third-01", 1).model_dump(mode="json")
    assert await code(world, "create", mine, **body) == "access.host"
    assert await code(world, "create", HostToken("host-1", key), **body) == "access.host_key"
    assert (await world.ask("show", "first-01"))["state"] == "ACTIVE"


async def test_an_old_token_of_a_host_counts_no_more(world: World) -> None:
    """Breaks: an overheard token serves for ever."""
    host = await world.start("demo-01")
    now_s = int(time.time())
    header = jwt.get_unverified_header(host.grant.credential())
    claims = {"sub": "host:host-1", "aud": "lucid.cmd", "iat": now_s - 900, "exp": now_s - 840, "req": ""}
    old = jwt.encode(claims, host.grant.sign_key, algorithm="EdDSA", headers=header)
    assert await code(world, "abort", lambda *_: old, session="demo-01") == "access.expired"
    longer = jwt.encode({**claims, "exp": now_s + 9000}, host.grant.sign_key, "EdDSA", headers=header)
    assert await code(world, "abort", lambda *_: longer, session="demo-01") == "access.claims"


async def test_a_token_of_a_host_serves_one_request(world: World, bare: Jet) -> None:
    """Breaks: a person who overhears a host ends its recordings, or pauses them again and again."""
    host = await world.start("demo-01")
    mine, overheard = host.grant.credential, []

    def heard(name: str = "", body: Mapping[str, Any] = NO_MEMBERS, /) -> str:
        overheard.append({**body, "token": mine(name, body)})
        return str(overheard[-1]["token"])

    await call(bare, "pause", {"session": "demo-01"}, credential=heard)
    taken = str(overheard[0]["token"])
    for name in ("pause", "resume", "abort", "stop", "show"):
        assert await code(world, name, lambda *_: taken, session="demo-01") == "access.request", name
    again = await world.jet.request(subjects.command("pause"), json.dumps(overheard[0]).encode())
    assert json.loads(again)["ok"]["state"].startswith("PAUS"), "repeated, it counts once"
    for changed in ({"reason": "another"}, {"cause": "another"}, {"audit_reason": "x"}, {"at_us": 5}):
        raw = json.dumps({**overheard[0], **changed}).encode()
        answer = json.loads(await world.jet.request(subjects.command("pause"), raw))
        assert answer["error"]["code"] == "access.request", changed
    for body in ({"session": "demo-01"}, {"session": "demo-01", "cause": ""}):
        raw = json.dumps({**body, "token": mine("pause", body)}).encode()
        answer = json.loads(await world.jet.request(subjects.command("pause"), raw))
        assert answer["error"]["code"] == "command.form", "without a cause it would count twice"
    odd = json.dumps({"session": "\ud800", "n": 1 << 70, "cause": "x", "token": taken}).encode()
    answer = json.loads(await world.jet.request(subjects.command("pause"), odd))
    assert answer["error"]["code"] == "command.form"


async def test_a_token_of_seconds_ends_by_itself(world: World) -> None:
    """Breaks: a token that was verified once is good for as long as the service runs."""
    world.settings = replace(world.settings, jwt_leeway_s=0)
    ended = token(world, Role.ADMIN, life_s=-31)
    assert await code(world, "ping", ended) == "access.expired"


async def test_a_request_that_lies_about_its_form_is_answered(world: World) -> None:
    """Breaks: one client ends the command service for all."""
    credential = token(world, Role.SUPER_ADMIN)()
    for more in (
        *({"token": 3}, {"token": None}, {"token": credential, "address": 3}),
        *({"token": credential, "address": "x" * 65}, {"token": credential, "session": 3}),
    ):
        body = json.dumps({"session": "a", **more}).encode()
        raw = await world.jet.request(subjects.command("show"), body)
        assert b"command.bug" not in raw
        assert b"error" in raw
    await world.start("demo-01")
    with pytest.raises(RefusedByState):
        await world.ask("resume", "demo-01")
    assert (await SessionLog(world.jet).load("demo-01")).state == "ACTIVE"
