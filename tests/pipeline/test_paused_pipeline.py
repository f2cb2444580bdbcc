"""A paused pipeline leaves fragments in the stream, and takes them up again. Real server and worker."""

import asyncio
from pathlib import Path

from infra.nats_server.server import NatsServer
from schemas import subjects
from streams.event_store.chunk_log import last_recorded
from streams.roles.services import run_conductor, run_worker
from tests.support.pipeline.both_verifiers import verified
from tests.support.pipeline.conducted import Host, World, connected, running, system

LOOKS, LOOK_S = 20, 0.05


async def recorded(world: World, session: str) -> int:
    """Fragments in recorded chunks."""
    last = await last_recorded(world.jet, session)
    return last[1].state.fragments if last else 0


async def rests(world: World, session: str) -> None:
    """Fails if anything more is recorded within a second."""
    before = await recorded(world, session)
    for _ in range(LOOKS):
        await asyncio.sleep(LOOK_S)
        assert await recorded(world, session) == before


async def paused(world: World, name: str = "demo-01") -> tuple[Host, int]:
    """A session whose pipeline was paused after its first chunk, with more fragments in the stream."""
    host = await world.start(name)
    await host.record(8)
    await world.stored(name, 1)
    assert (await world.ask("pause_pipeline", name))["pipeline_paused"]
    await asyncio.sleep(LOOK_S)
    before = await recorded(world, name)
    await host.record(20)
    await rests(world, name)
    return host, before


async def test_fragments_wait_in_the_stream_and_are_taken_up_after_it(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: what came during a pause of the pipeline is lost, doubled or processed all the same."""
    async with system(server, tmp_path) as world:
        host, before = await paused(world)
        shown = await world.ask("show", "demo-01")
        assert (shown["state"], shown["pipeline_paused"]) == ("ACTIVE", True)
        assert shown["waiting"] >= 20
        counts = await world.jet.subject_counts(subjects.RECORDINGS, subjects.ALL_RECORDINGS)
        assert list(counts.values()) == [len(host.sent)]
        await world.ask("resume_pipeline", "demo-01")
        await host.record(5)
        await host.final()
        await world.until("demo-01", "STOPPED")
        manifest = await verified(world, "demo-01", tmp_path)
        assert manifest.totals.fragments == len(host.sent)
        assert (manifest.gaps, manifest.end) == ((), "final")
        assert before < len(host.sent)


async def test_a_pause_in_which_nothing_comes_loses_no_fragment_of_before(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: the pipeline rests for a moment, and what was recorded before it is declared as a gap."""
    async with system(server, tmp_path) as world:
        host = await world.start("demo-01")
        await host.record(8)
        await world.stored("demo-01", 1)
        assert (await recorded(world, "demo-01")) < len(host.sent), "an open chunk has fragments, too"
        await world.ask("pause_pipeline", "demo-01")
        await world.ask("resume_pipeline", "demo-01")
        await host.record(2)
        await host.final()
        await world.until("demo-01", "STOPPED")
        manifest = await verified(world, "demo-01", tmp_path)
        assert (manifest.gaps, manifest.totals.fragments) == ((), len(host.sent))


async def test_a_recording_ends_at_its_host_while_the_pipeline_waits(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: a host cannot end its recording until somebody resumes the pipeline; or the seal is lost."""
    async with system(server, tmp_path) as world:
        host, _ = await paused(world)
        await world.ask("stop", "demo-01")
        await host.final()
        await rests(world, "demo-01")
        assert (await world.ask("show", "demo-01"))["state"] == "STOPPING"
        await world.ask("resume_pipeline", "demo-01")
        await world.until("demo-01", "STOPPED")
        assert (await verified(world, "demo-01", tmp_path)).totals.fragments == len(host.sent)


async def test_an_ending_in_both_pauses_is_found_when_the_pipeline_goes_on(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: who pauses both, and ends the recording, has a session that stays PAUSED for ever."""
    async with system(server, tmp_path) as world:
        host = await world.start("demo-01")
        await host.record(8)
        await world.stored("demo-01", 1)
        await world.ask("pause", "demo-01")
        await world.until("demo-01", "PAUSED")
        await world.ask("pause_pipeline", "demo-01")
        await host.record(3)
        await host.final()
        await rests(world, "demo-01")
        await world.ask("resume_pipeline", "demo-01")
        await world.until("demo-01", "STOPPED")
        assert (await verified(world, "demo-01", tmp_path)).totals.fragments == len(host.sent)


async def test_a_paused_pipeline_stays_paused_over_restarts_and_in_other_groups(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: a worker that starts again, or takes over, processes what a person wanted to wait."""
    async with connected(server, tmp_path) as world:
        async with running(run_conductor, world), running(run_worker, world):
            await world.answered()
            host, before = await paused(world)

        def group(number: int):  # type: ignore[no-untyped-def]
            return lambda here, jet, stop: run_worker(here, jet, stop, number, 2)

        async with running(run_conductor, world), running(group(0), world), running(group(1), world):
            await world.answered()
            await host.record(10)
            await rests(world, "demo-01")
            assert await recorded(world, "demo-01") == before
            await world.ask("resume_pipeline", "demo-01")
            await host.final()
            await world.until("demo-01", "STOPPED")
            assert (await verified(world, "demo-01", tmp_path)).totals.fragments == len(host.sent)


async def test_a_session_may_be_aborted_while_its_pipeline_is_paused(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: the host is gone, and the session cannot be ended."""
    async with system(server, tmp_path) as world:
        host, _ = await paused(world)
        await world.ask("abort", "demo-01")
        await rests(world, "demo-01")
        await world.ask("resume_pipeline", "demo-01")
        await world.until("demo-01", "STOPPED")
        manifest = await verified(world, "demo-01", tmp_path)
        assert (manifest.end, manifest.totals.fragments) == ("aborted", len(host.sent))


async def test_a_pause_of_one_pipeline_delays_no_other_session(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: one paused session stands in the way of all others of its worker, or of its host."""
    async with system(server, tmp_path) as world:
        await paused(world)
        other = await world.start("demo-02")
        await other.record(30)
        await other.final()
        await world.until("demo-02", "STOPPED")
        assert (await world.ask("show", "demo-01"))["pipeline_paused"]
