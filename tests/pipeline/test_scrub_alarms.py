"""An alarm of the scrub stays until its place is good or a person knows it; nothing starves a pass."""

from pathlib import Path

import pytest

from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.events.scrub import ScrubState, read_state, write_state
from schemas.events.tries import Try, write_tries
from streams.control.client import call
from streams.evidence import scrub_pace
from streams.roles.services import run_conductor, run_worker
from tests.support.machine.waiting import PATIENCE_S
from tests.support.pipeline.conducted import World, running
from tests.support.pipeline.scrubbed import (
    asked,
    flip,
    one_pass,
    open_alarms,
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


async def without_source(world: World) -> list[Path]:
    """The files of a sealed session whose source is gone."""
    files = await sealed(world)
    await world.jet.purge(subjects.RECORDINGS, subjects.recording_by_anyone("demo-01"))
    return files


async def sounding(world: World) -> int:
    """How many alarms nobody has acknowledged."""
    return int((await asked(world))["sounding"])


async def noted(world: World) -> list[str]:
    """The alarms in the audit chain."""
    page = await call(world.jet, "audit", {"limit": 500, "action": "proof_failed"}, PATIENCE_S)
    return [one["detail"] for one in page["entries"]]


async def test_an_alarm_stays_through_passes_and_restarts_until_its_place_is_good(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: evidence is false, and the alert ends by itself when the next pass begins."""
    async with scrubbing(server, tmp_path) as world:
        alarm = [("demo-01", "chunk 0", "chunk.digest")]
        async with running(run_worker, world), running(run_conductor, world):
            await world.answered()
            files = await without_source(world)
            good = files[0].read_bytes()
            flip(files[0], 200)
            assert open_alarms(await one_pass(world)) == alarm
            since_us = (await asked(world))["alarms"][0]["since_us"]
        async with running(run_conductor, world):
            await world.answered()
            assert open_alarms(await shown(world, lambda found: found["owner"])) == alarm
            assert await sounding(world) == 1
            found = await one_pass(world)
            assert open_alarms(found) == alarm
            assert found["alarms"][0]["since_us"] == since_us
            assert len(await noted(world)) == 1, "the chain has it once"
            files[0].chmod(0o600)
            files[0].write_bytes(good)
            found = await one_pass(world)
            assert (open_alarms(found), await sounding(world)) == ([], 0)
            flip(files[0], 200)
            assert open_alarms(await one_pass(world)) == alarm, "damaged again"
            assert len(await noted(world)) == 2


async def test_an_acknowledged_alarm_is_silent_and_listed_while_the_damage_is_the_same(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: a known loss sounds for ever, or hides the next one."""
    async with system(server, tmp_path) as world:
        files = await without_source(world)
        flip(files[0], 200)
        await one_pass(world)
        known = await call(world.jet, "scrub_acknowledge", {"session": "demo-01"})
        assert known["acknowledged"] == 1
        again = await call(world.jet, "scrub_acknowledge", {"session": "demo-01"})
        assert again["acknowledged"] == 0
        found = await one_pass(world)
        assert [one["place"] for one in found["alarms"]] == ["chunk 0"]
        assert found["alarms"][0]["acknowledged_by"]
        assert await sounding(world) == 0
        flip(files[1], 200)
        assert await sounding(world) == 0
        await one_pass(world)
        assert await sounding(world) == 1
        files[0].unlink()
        await one_pass(world)
        assert await sounding(world) == 2, "other damage in the same place"
        await call(world.jet, "destroy", {"session": "demo-01"}, PATIENCE_S)
        assert open_alarms(await one_pass(world)) == [], "nothing of it can be damaged"


async def test_a_damaged_state_is_an_alarm_until_everything_was_looked_at_again(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: a flipped digit claims that a session was proven; or the alarms of before are gone unseen."""
    async with scrubbing(server, tmp_path) as world, running(run_worker, world):
        async with running(run_conductor, world):
            await world.answered()
            await sealed(world)
            await one_pass(world)
        path = world.data.path / "scrub/state.json"
        path.write_bytes(path.read_bytes().replace(b'"sessions":1', b'"sessions":2', 1))
        async with running(run_conductor, world):
            await world.answered()
            found = await shown(world, lambda found: found["owner"])
            assert open_alarms(found) == [("", "state of the scrub", "scrub.damaged")]
            assert open_alarms(await one_pass(world)) == []


def test_a_state_of_before_is_read_and_one_that_was_written_is_read_back() -> None:
    """Breaks: an update forgets which sessions are proven."""
    state = ScrubState(ends={"CHUNKS": 7})
    assert read_state(write_state(state)) == state
    before = b'{"version":1,"current":{"number":3},"place":{},"last":null,"findings":[]}'
    assert read_state(before).current.number == 3


async def test_a_message_that_waits_for_ever_does_not_end_the_proofs(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: one chunk that never gets done, and no evidence is proven any more."""
    monkeypatch.setattr(scrub_pace, "YIELD_S", 0.05)
    monkeypatch.setattr(scrub_pace, "LOOK_S", 0.02)
    async with scrubbing(server, tmp_path) as world:
        async with running(run_worker, world), running(run_conductor, world):
            await world.answered()
            await sealed(world)
        old = write_tries({7: Try(busy=True, published_us=1_000_000)})
        async with world.jet.serve(subjects.tries(3), lambda: old), running(run_conductor, world):
            await world.answered()
            number = (await asked(world))["pass"]["number"]
            await asked(world, now=True)
            found = await shown(world, lambda found: found["running"] or bool(found["last"]))
            found = await shown(world, lambda found: found["pass"]["number"] > number and bool(found["last"]))
            assert found["last"]["sessions"] == 1
            assert found["last"]["waited_us"] > 0, "it gave way, too"


async def test_a_repair_that_was_killed_in_its_middle_is_told_once(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: a disk forgets, a repair hides it, and a kill at the right time loses the finding."""
    async with scrubbing(server, tmp_path) as world, running(run_worker, world):
        async with running(run_conductor, world):
            await world.answered()
            await sealed(world)
            await one_pass(world)
        # As a kill leaves it: the repair was written down, and done; its outcome was not written.
        path = world.data.path / "scrub/state.json"
        state = read_state(path.read_bytes())
        begun = {"session": "demo-01", "place": "chunk 1", "code": "chunk.digest", "text": "is not sealed"}
        alarm = {**begun, "since_us": 5, "at_us": 5, "repairing": True}
        path.write_bytes(write_state(state.model_validate({**state.model_dump(), "alarms": [alarm]})))
        async with running(run_conductor, world):
            await world.answered()
            assert await sounding(world) == 0
            found = await one_pass(world)
            assert (found["last"]["repaired"], open_alarms(found)) == (1, [])
            assert [(one["place"], one["outcome"]) for one in found["findings"]] == [("chunk 1", "repaired")]
            assert (await one_pass(world))["last"]["repaired"] == 0
