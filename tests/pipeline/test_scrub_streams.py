"""The scrub finds a flipped bit in a block of each stream within one pass."""

from pathlib import Path

import pytest

from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.errors import Rejected
from schemas.ports.messages import Message
from streams.control.client import call
from streams.event_store.dead_letters import dead_letter, publish_dead_letter
from streams.evidence.stream_proof import PROVEN
from streams.roles.services import run_conductor
from tests.support.pipeline.conducted import World, running
from tests.support.pipeline.scrubbed import (
    flip_in_stream,
    one_pass,
    open_alarms,
    scrubbing,
    sealed,
    system,
    written_at_once,
)

LETTERS = 9


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits."""
    written_at_once(monkeypatch)


async def filled(world: World) -> None:
    """Messages in every stream: two sessions, dead letters, and the audit entries of a pass."""
    await sealed(world, "demo-01")
    host = await world.start("demo-02")
    await host.record(24)
    await world.stored("demo-02", 3)
    for seq in range(1, LETTERS + 1):
        message = Message("lucid.rec.0.host-1.demo-02", b"no fragment", seq=seq)
        letter = dead_letter("record", "demo-02", message, Rejected("no fragment", code="fragment.header"))
        await publish_dead_letter(world.jet, letter)


@pytest.mark.parametrize("stream", PROVEN)
async def test_a_flipped_bit_in_a_message_of_a_stream_is_an_alarm_within_a_pass(
    tmp_path: Path, stream: str
) -> None:
    """Breaks: an event is gone, and nobody knows before it is needed."""
    nats = NatsServer(tmp_path / "nats")
    await nats.start()
    try:
        async with system(nats, tmp_path) as world:
            await filled(world)
            calm = await one_pass(world)
            assert (calm["last"]["alarms"], open_alarms(calm)) == (0, [])
            assert calm["last"]["messages"] > LETTERS + 30
        await nats.stop()
        flip_in_stream(tmp_path / "nats", stream)
        await nats.start()
        async with system(nats, tmp_path) as world:
            found = open_alarms(await one_pass(world))
            assert _expected(stream) in {(place, code) for _, place, code in found}, found
            again = await one_pass(world)
            assert open_alarms(again) == found, "a second pass finds the same, and doubles nothing"
    finally:
        await nats.stop()


def _expected(stream: str) -> tuple[str, str]:
    if stream in (subjects.LIFECYCLE, subjects.AUDIT):
        return f"messages of {stream}", "stream.hole"
    return f"events in {stream}", "stream.hole"


@pytest.mark.parametrize("stream", PROVEN)
async def test_a_stream_that_the_server_cuts_short_is_an_alarm_until_a_person_knows_it(
    tmp_path: Path, stream: str
) -> None:
    """Breaks: the server drops all that stands behind a damaged length, and the rest looks whole."""
    nats = NatsServer(tmp_path / "nats")
    await nats.start()
    try:
        async with system(nats, tmp_path) as world:
            await filled(world)
            await one_pass(world)
        await nats.stop()
        flip_in_stream(tmp_path / "nats", stream, length=True)
        await nats.start()
        async with scrubbing(nats, tmp_path) as world, running(run_conductor, world):
            await world.answered()
            if stream == subjects.DEAD:  # the server notices too late, and still counts them
                alarm = ("demo-02", f"events in {stream}", "stream.hole")
            else:
                alarm = ("", f"end of {stream}", "stream.cut")
            assert alarm in open_alarms(await one_pass(world))
            known = await call(world.jet, "scrub_acknowledge", {"session": alarm[0]})
            assert known["acknowledged"] >= 1
            (one,) = (one for one in known["alarms"] if one["place"] == alarm[1])
            assert one["acknowledged_by"], "listed, and known"
            found = open_alarms(await one_pass(world))
            assert (alarm in found) == (stream == subjects.DEAD), "a cut stream counts as it is now"
    finally:
        await nats.stop()


async def test_a_stream_that_was_cut_and_has_grown_again_is_an_alarm_until_a_person_knows_it(
    tmp_path: Path,
) -> None:
    """Breaks: events are gone, and new ones take their numbers before the scrub looks again."""
    nats, stream = NatsServer(tmp_path / "nats"), subjects.CHUNKS
    await nats.start()
    try:
        async with system(nats, tmp_path) as world:
            await filled(world)
            await one_pass(world)
            before = (await world.jet.info(stream)).last_seq
        await nats.stop()
        flip_in_stream(tmp_path / "nats", stream, length=True)
        await nats.start()
        async with scrubbing(nats, tmp_path) as world:
            assert (await world.jet.info(stream)).last_seq < before
            while (await world.jet.info(stream)).last_seq < before + 3:
                await world.jet.publish(subjects.chunk(subjects.STORED, "demo-02"), b"{}")
            async with running(run_conductor, world):
                await world.answered()
                alarm = ("", f"end of {stream}", "stream.cut")
                assert alarm in open_alarms(await one_pass(world))
                assert alarm in open_alarms(await one_pass(world)), "until a person knows it"
                await call(world.jet, "scrub_acknowledge", {"session": ""})
                assert alarm not in open_alarms(await one_pass(world))
    finally:
        await nats.stop()
