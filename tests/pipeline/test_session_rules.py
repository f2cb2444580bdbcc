"""The rules of one session take effect: retention period, largest size. Real server, conductor, worker."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from infra.nats_server.server import NatsServer
from schemas.errors import RefusedByState
from schemas.events.session import DAY_US, SessionPolicy
from schemas.format.fragment import MAIN, genesis
from streams.control.client import call
from streams.event_store.session_log import SessionLog
from streams.host.publisher import Grant
from streams.retention.expired_sessions import ExpiredSessions
from streams.scheduling.clock import now_us
from tests.support.pipeline.both_verifiers import verified
from tests.support.pipeline.conducted import SETTINGS, Host, World, requested, system


async def started(world: World, session: str, counter: int, policy: SessionPolicy, at_us: int = 1) -> Host:
    """A host's session with a policy. at_us: the time by the host's clock."""
    create = requested(session, counter).model_copy(update={"policy": policy, "at_us": at_us})
    await call(world.jet, "create", create.model_dump(mode="json"))
    intake = bytes.fromhex((await world.ask("start", session))["intake"])
    first = genesis(create.uid, MAIN, create.host_key, counter, create.prev_genesis, intake)
    key = Ed25519PrivateKey.from_private_bytes(b"h" * 32)
    grant = Grant(session, "host-1", create.uid, first, intake, key, SETTINGS.chunk_bytes)
    return Host(world.jet, grant)


async def sealed(world: World, session: str, counter: int, policy: SessionPolicy) -> None:
    host = await started(world, session, counter, policy)
    await host.record(3)
    await host.final()
    await world.until(session, "STOPPED")


def expiry(world: World, at_us: int) -> ExpiredSessions:
    return ExpiredSessions(lambda body: call(world.jet, "list", body), SessionLog(world.jet), lambda: at_us)


async def test_a_session_is_destroyed_when_its_period_is_over_and_not_earlier(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: a recording stays for years although a rule says a day; or it is gone before that day."""
    async with system(server, tmp_path) as world:
        for number, name in enumerate(("short", "long", "held", "free"), 1):
            days = {"short": 1, "long": 30, "held": 1, "free": None}[name]
            await sealed(world, name, number, SessionPolicy(retention_days=days))
        await world.ask("hold", "held", held=True, reason="court")
        with pytest.raises(RefusedByState, match=r"retention\.early"):
            await world.ask("destroy", "short", at_us=now_us() + 9 * DAY_US)
        assert await expiry(world, now_us()).order_due() == []
        two_days = now_us() + 2 * DAY_US
        assert await expiry(world, two_days).order_due() == ["short"]
        await world.until("short", "DESTROYED")
        session = await SessionLog(world.jet).load("short")
        assert session.destroy is not None
        assert (session.destroy.who, session.destroy.reason) == ("conductor", "retention")
        assert await expiry(world, two_days).order_due() == []
        for name in ("long", "held", "free"):
            assert (await world.ask("show", name))["state"] == "STOPPED"
        await world.ask("hold", "held", held=False, reason="court")
        assert await expiry(world, two_days).order_due() == ["held"]


async def test_a_session_that_never_started_goes_with_its_period(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: the name of a person whom nobody ever recorded stays for ever."""
    async with system(server, tmp_path, worker=False) as world:
        policy = {"retention_days": 1}
        await world.ask("open", "up-01", policy=policy, details={"name": "Ann"}, cause="open-1")
        assert await expiry(world, now_us() + 2 * DAY_US).order_due() == ["up-01"]
        await world.until("up-01", "DESTROYED")


async def test_what_still_runs_is_not_cut_off(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: a recording of two days loses its second one to a rule of one day."""
    async with system(server, tmp_path) as world:
        host = await started(world, "demo-01", 1, SessionPolicy(retention_days=1))
        await host.record(3)
        assert await expiry(world, now_us() + 9 * DAY_US).order_due() == []
        assert (await world.ask("show", "demo-01"))["state"] == "ACTIVE"


async def test_the_clock_of_a_host_decides_no_period(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: a host thinks it is 1970, and its recording is erased as soon as one chunk fails."""
    async with system(server, tmp_path) as world:
        begun_us, policy = now_us(), SessionPolicy(retention_days=1)
        for number, (name, at_us) in enumerate((("past", 1), ("future", 2**52)), 1):
            host = await started(world, name, number, policy, at_us)
            await host.record(3)
            assert begun_us <= (await world.ask("show", name))["created_us"] <= now_us()
            assert (await world.ask("error", name, at_us=at_us))["moved_us"] >= begun_us
            assert name not in await expiry(world, now_us() + 9 * DAY_US).order_due()
            await world.ask("recover", name)
            await host.final()
            sealed = await world.until(name, "STOPPED")
            assert sealed["retained_until_us"] == sealed["seal"]["sealed_us"] + DAY_US


async def test_a_recording_that_grows_past_its_limit_is_stopped_and_sealed(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: one session fills the disk; or what it has recorded so far is no evidence."""
    async with system(server, tmp_path) as world:
        host = await started(world, "demo-01", 1, SessionPolicy(max_bytes=400_000))
        await host.record(5)
        assert (await world.ask("show", "demo-01"))["state"] == "ACTIVE"
        await host.record(10)
        shown = await world.until("demo-01", "STOPPING")
        assert shown["reason"] == "max_size"
        await host.final()
        await world.until("demo-01", "STOPPED")
        assert (await verified(world, "demo-01", tmp_path)).end == "final"
