"""Personal fields, rules and picture of sessions that a host records: real server, conductor, worker."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.errors import RefusedByState, Unavailable
from schemas.events.details import Details
from schemas.events.session import CaptureSettings, SessionPolicy
from streams.control.opening import Opening
from streams.event_store.session_log import SessionLog
from streams.host.session_start import About, start_session
from tests.support.pipeline.conducted import SETTINGS, Host, World, system

OWNER, SECRET = "zanzibar.example@clinic", "kilimanjaro-unheard-of"
DETAILS = Details(name="Zanzibar shift", owner=OWNER, tags=("ward-7",))
ABOUT = About(
    capture=CaptureSettings(frame_rate=5),
    policy=SessionPolicy(retention_days=3, max_bytes=1000),
    details=DETAILS,
    password=SECRET,
)


async def started(
    world: World, session: str = "demo-01", about: About = ABOUT, *, once: bool = False
) -> Host:
    asked = start_session(world.jet, world.here.identity, "host-1", session, SETTINGS, once=once, about=about)
    return Host(world.jet, await asked)


async def test_personal_fields_of_a_host_are_sealed_before_its_session_starts(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: whoever reads the log reads whose desktop a host records; or the fields are lost on the way."""
    async with system(server, tmp_path, worker=False) as world:
        await started(world)
        shown = await world.ask("show", "demo-01")
        assert (shown["state"], shown["revision"], shown["capture"]["frame_rate"]) == ("ACTIVE", 1, 5)
        found = (await world.ask("details", "demo-01"))["details"]
        assert (found["name"], found["owner"], found["tags"]) == ("Zanzibar shift", OWNER, ["ward-7"])
        session = await SessionLog(world.jet).load("demo-01")
        assert session.key_id == session.dek_id, "one key, for the fields and for the chunks"
        messages = [m async for m in world.jet.read_all(subjects.LIFECYCLE, "lucid.>")]
        written = b"".join(bytes(message.data) for message in messages)
        assert not any(word.encode() in written for word in (OWNER, SECRET, "Night"))


async def test_a_crash_between_a_session_and_its_personal_fields_loses_none(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: the power fails, and a session runs without the name that its host gave it."""
    describe, asked = Opening.describe, []

    async def crashing(*given: Any) -> Any:
        asked.append(given)
        if len(asked) > 1:
            done = await describe(*given)
        if len(asked) < 3:
            raise Unavailable("the power failed", code="nats.gone")
        return done

    async with system(server, tmp_path, worker=False) as world:
        with patch.object(Opening, "describe", crashing):
            await started(world)
        assert len(asked) == 3, "before the fields are sealed, before the answer, and not at all"
        assert (await world.ask("details", "demo-01"))["details"]["name"] == "Zanzibar shift"
        assert (await world.ask("show", "demo-01"))["revision"] == 1


async def test_a_session_whose_personal_fields_cannot_be_sealed_leaves_no_place_taken(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: each refused recording with a name takes a place of its host for good."""

    async def refusing(*_: Any) -> Any:
        raise RefusedByState("no", code="keys.shredded")

    async with system(server, tmp_path, worker=False) as world:
        with patch.object(Opening, "describe", refusing), pytest.raises(RefusedByState):
            await started(world, once=True)
        assert (await world.ask("show", "demo-01"))["state"] == "DESTROYED"


async def test_size_and_retention_rules_hold_for_a_session_of_a_host(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: a host fills the disk past its limit, or its recording is destroyed before its time."""
    async with system(server, tmp_path) as world:
        host = await started(world)
        await host.record(12)
        stopping = await world.until("demo-01", "STOPPING")
        assert stopping["reason"] == "max_size"
        await host.final()
        sealed = await world.until("demo-01", "STOPPED")
        assert sealed["retained_until_us"] >= sealed["ended_us"] + 3 * 86_400 * 1_000_000
        with pytest.raises(RefusedByState, match=r"retention\.early"):
            await world.ask("destroy", "demo-01")
