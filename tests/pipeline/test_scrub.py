"""The scrub finds a flipped bit in the store and in a block of the stream, and repairs from the source."""

import asyncio
import json
from pathlib import Path

import pytest

from infra.disk.scrub_place import DiskScrubPlace
from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.errors import RefusedByState, Unavailable
from schemas.events.scrub import Pass, Place, ScrubState, read_state
from streams.control.client import call
from streams.event_store.session_log import SessionLog
from streams.projections.proven_times import ProvenTimes
from streams.roles.services import run_conductor, run_worker
from tests.support.machine.waiting import PATIENCE_S
from tests.support.pipeline.conducted import World, running
from tests.support.pipeline.scrubbed import (
    asked,
    flip,
    one_pass,
    scrubbing,
    sealed,
    shown,
    system,
    written_at_once,
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits."""
    written_at_once(monkeypatch)


async def test_a_flipped_bit_in_a_stored_chunk_is_found_within_a_pass_and_repaired(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: a disk that forgets makes evidence false long before anybody looks."""
    async with system(server, tmp_path) as world:
        files = await sealed(world)
        good = [path.read_bytes() for path in files]
        calm = await one_pass(world)
        assert (calm["last"]["sessions"], calm["last"]["chunks"]) == (1, len(files))
        assert (calm["last"]["alarms"], calm["last"]["repaired"]) == (0, 0)
        assert calm["last"]["fragments"] >= 24
        for broken in (files[1], files[-1]):
            flip(broken, 200)
            found = await one_pass(world)
            assert (found["last"]["alarms"], found["last"]["repaired"]) == (0, 1)
            assert found["findings"][0]["place"] == f"chunk {int(broken.name)}"
            assert found["findings"][0]["outcome"] == "repaired"
            assert [path.read_bytes() for path in files] == good
        files[0].unlink()
        found = await one_pass(world)
        assert found["findings"][0]["code"] == "chunk.missing"
        assert [path.read_bytes() for path in files] == good
        assert len(list((world.data.path / "quarantine").glob("*/*"))) == 2


async def test_what_cannot_be_read_of_one_session_keeps_no_other_from_being_proven(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: one bad event or one bad sector, and nothing is proven any more, and nobody is told."""
    async with system(server, tmp_path) as world:
        for name in ("demo-01", "demo-02", "demo-03"):
            await sealed(world, name)
        open_host = await world.start("demo-04")
        await open_host.record(24)
        uid = (await world.ask("show", "demo-02"))["uid"]
        await world.jet.publish(subjects.lifecycle("demo-01"), b"{}")
        manifest = next((world.data.manifests / uid).iterdir())
        manifest.unlink()
        manifest.mkdir()
        await world.jet.publish(subjects.chunk(subjects.STORED, "demo-04"), b"{}")
        found = await one_pass(world)
        assert set(found["last"]["failed"]) == {"demo-01", "demo-02"}
        assert {one["place"] for one in found["findings"]} == {
            "log",
            "manifest 1",
            "form of CHUNKS",
            "form of LIFECYCLE",
        }
        assert found["last"]["sessions"] == 3
        manifest.rmdir()


async def test_a_chunk_that_nothing_makes_again_is_an_alarm_in_state_log_and_audit_chain(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: evidence is false, nobody is told, and the session still counts as proven."""
    async with system(server, tmp_path) as world:
        files = await sealed(world)
        assert (await one_pass(world))["last"]["alarms"] == 0
        before = await proven(world)
        assert before
        async with asyncio.timeout(PATIENCE_S):  # answers read the state every two seconds
            while (await call(world.jet, "list", {}))["sessions"][0]["proven_us"] != before:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert (await world.ask("show", "demo-01"))["proven_us"] == before
        await world.jet.purge(subjects.RECORDINGS, subjects.recording_by_anyone("demo-01"))
        flip(files[0], 200)
        found = await one_pass(world)
        assert (found["last"]["alarms"], found["last"]["failed"]) == (1, {"demo-01": "chunk.digest"})
        assert "cannot be made again" in found["findings"][0]["text"]
        assert await proven(world) == 0, "the pass that ended last did not prove it"
        async with asyncio.timeout(PATIENCE_S):
            while True:
                page = await call(world.jet, "audit", {"limit": 500})
                acts = [one for one in page["entries"] if "proof_failed" in json.dumps(one)]
                if acts:
                    break
                await asyncio.sleep(0.05)
        assert "chunk.digest" in json.dumps(acts)


async def proven(world: World) -> int:
    session = await SessionLog(world.jet).existing("demo-01")
    return await ProvenTimes(world.data.scrub_place()).of(session)


async def test_a_flipped_bit_in_a_block_of_the_stream_is_found_within_a_pass(tmp_path: Path) -> None:
    """Breaks: the source of a repair is gone, and nobody knows before it is needed."""
    nats = NatsServer(tmp_path / "nats")
    await nats.start()
    try:
        async with system(nats, tmp_path) as world:
            host = await world.start("demo-01")
            await host.record(24)
            await world.stored("demo-01", 3)
            assert (await one_pass(world))["last"]["alarms"] == 0
        (block,) = (tmp_path / "nats").rglob("RECORDINGS/msgs/*.blk")
        await nats.stop()
        flip(block, block.stat().st_size // 3)
        await nats.start()
        async with system(nats, tmp_path) as world:
            found = await one_pass(world)
            assert found["last"]["failed"] == {"demo-01": "source.missing"}
            assert found["findings"][0]["place"].startswith("source of chunk ")
            assert found["findings"][0]["text"].startswith("1 of ")
    finally:
        await nats.stop()


async def test_a_killed_pass_goes_on_where_it_was_and_claims_nothing_more(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: an installation that restarts every day never ends a pass; or a skipped file counts as good."""
    async with scrubbing(server, tmp_path) as world, running(run_worker, world):
        async with running(run_conductor, world):
            await world.answered()
            names = [f"demo-{number:02}" for number in range(3)]
            numbers = []
            for name in names:
                await sealed(world, name)
                numbers.append((await SessionLog(world.jet).existing(name)).first_seq)
            whole = (await one_pass(world))["last"]
        # As a kill leaves it, in the middle of the second session.
        state = read_state((world.data.path / "scrub/state.json").read_bytes())
        open_pass = Pass(number=7, began_us=state.current.began_us, marks=state.current.marks)
        place = Place(number=numbers[0], session=names[1], seal_no=1, index=2)
        killed = ScrubState(current=open_pass, place=place)
        (world.data.path / "scrub/state.json").write_text(killed.model_dump_json())
        async with running(run_conductor, world):
            await world.answered()
            await asked(world, now=True)
            found = await shown(world, lambda found: bool(found["last"]))
            again = found["last"]
            assert again["number"] == 7
            assert again["sessions"] == 2
            assert again["chunks"] == whole["chunks"] * 2 // 3 - 2
            session = await SessionLog(world.jet).existing(names[1])
            times = ProvenTimes(world.data.scrub_place())
            assert await times.of(session) == open_pass.marks[0].at_us, "its check began before the kill"


async def test_a_destroyed_session_is_skipped_and_its_destruction_wins(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: the scrub raises an alarm for erased evidence, or brings a chunk of it back."""
    async with system(server, tmp_path) as world:
        files = await sealed(world)
        await sealed(world, "demo-02")
        assert await call(world.jet, "destroy", {"session": "demo-01"}, PATIENCE_S)
        found = await one_pass(world)
        assert (found["last"]["sessions"], found["last"]["alarms"]) == (1, 0)
        assert not any(path.exists() for path in files)
        assert await proven(world) == 0


async def test_two_processes_never_scrub_one_folder_at_once(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: two passes cost the disk twice, and each writes over the state of the other."""
    async with system(server, tmp_path) as world:
        other = DiskScrubPlace(world.data.path / "scrub")
        assert not other.take()
        assert (await asked(world))["owner"]
    assert other.take(), "the lock ends with its owner"
    async with system(server, tmp_path) as world:
        assert not (await asked(world))["owner"]
        with pytest.raises(Unavailable, match="another process scrubs"):
            await asked(world, now=True)
        other.release()
        await shown(world, lambda found: bool(found["owner"]))


async def test_a_rate_of_0_turns_the_scrub_off(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: an operator cannot keep a disk free of other reads."""
    async with system(server, tmp_path, rate=0) as world:
        assert (await asked(world))["bytes_per_s"] == 0
        with pytest.raises(RefusedByState, match="the scrub is off"):
            await asked(world, now=True)
