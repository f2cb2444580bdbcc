"""Hosts that sign what the format does not allow, on the whole pipeline: each session ends and is true."""

import asyncio
from pathlib import Path

import pytest

from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.config.backoff import Backoff
from schemas.errors import Unavailable
from schemas.format.manifest import Manifest
from streams.pipeline.record import refusals
from streams.roles.services import run_conductor, run_worker
from streams.scheduling.retry import Policy
from tests.support.evidence.offences import ABORTED, WHOLE, Offence, a_final_with_a_flag
from tests.support.machine.waiting import PATIENCE_S
from tests.support.pipeline.both_verifiers import verified
from tests.support.pipeline.conducted import PART, Host, World, connected, running, system

BEFORE, SIZE = 5, 1000


async def offend(world: World, offence: Offence) -> Host:
    """A session of a host that offends, after some good data."""
    session = offence.__name__.replace("_", "-")
    host = await world.start(session, session)
    await host.record(BEFORE, SIZE)
    for fragment in offence(host.sealer, host.grant.sign_key, host.now_us):
        await host.send(fragment)
    return host


async def sealed(world: World, host: Host, path: Path) -> Manifest:
    """Its manifest, once the independent reader has found it true; what came before the offence is in it."""
    await world.until(host.grant.session, "STOPPED")
    manifest = await verified(world, host.grant.session, path)
    assert sum(chunk.plain for chunk in manifest.chunks) >= BEFORE * SIZE
    return manifest


async def test_whatever_a_host_signs_its_session_ends_and_is_true(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: one fragment that breaks a rule leaves a session open for days, and all behind it unsealed."""
    async with system(server, tmp_path) as world:
        hosts = {offence: await offend(world, offence) for offence in (*WHOLE, *ABORTED)}
        for offence, host in hosts.items():
            manifest = await sealed(world, host, tmp_path)
            end = ("aborted", ABORTED[offence]) if offence in ABORTED else ("final", "done")
            assert (manifest.end, manifest.reason) == end, offence
            shown = await world.ask("show", host.grant.session)
            if offence in ABORTED:
                assert ABORTED[offence] in {one["code"] for one in shown["refused"]}, "its host can learn why"


async def test_a_final_that_nobody_could_be_told_of_is_told_later(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a crash, or a command service that rests, behind a refused final leaves a session open."""
    monkeypatch.setattr(refusals, "ABORT", Policy(Backoff(0.1, 0.1), Unavailable))
    async with connected(server, tmp_path) as world:
        async with running(run_conductor, world):
            await world.answered()
            host = await world.start("demo-01")
            await host.record(BEFORE, SIZE)
        # nobody answers; its checkpoint tells of the final, and the worker that wrote it goes
        async with running(run_worker, world):
            fragments = a_final_with_a_flag(host.sealer, host.grant.sign_key, host.now_us)
            for fragment in [*fragments, host.sealer.part(PART, host.now_us)]:
                await host.send(fragment)
            follower = world.jet.follow(subjects.CHUNKS, [subjects.chunk(subjects.RECORDED, "demo-01")])
            await asyncio.wait_for(follower.batch(), PATIENCE_S)
            await follower.close()
        async with running(run_conductor, world), running(run_worker, world):
            await world.answered()
            manifest = await sealed(world, host, tmp_path)
            assert (manifest.end, manifest.reason) == ("aborted", "fragment.flags")


async def test_a_good_final_with_headers_that_nobody_takes_ends_its_session_too(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: as above, for a program between host and server that adds headers."""
    async with system(server, tmp_path) as world:
        host = await world.start("demo-01")
        await host.record(BEFORE, SIZE)
        whole = bytes(host.sealer.final((), host.now_us))
        await world.jet.publish(subjects.recording("host-1", "demo-01"), whole, {"x": "y" * 5000})
        manifest = await sealed(world, host, tmp_path)
        assert (manifest.end, manifest.reason) == ("aborted", "fragment.headers")
