"""What anybody who may publish can write under names that are none; a real server, and a whole system."""

import asyncio
from pathlib import Path

import pytest

from infra.jetstream import Jet, StreamSpec, connect
from infra.nats_server.server import NatsServer
from schemas import subjects
from streams.event_store import topology
from tests.support.machine.waiting import PATIENCE_S
from tests.support.pipeline.both_verifiers import verified
from tests.support.pipeline.conducted import World, system
from tests.support.servers.raw_client import send_raw

ODD = [
    b"\xff",
    b"x\x0by",
    b"x\x0cy",
    b"caf\xc3\xa9",
    b"x\x00y",
    b"x\x1cy",
    b"a:b",
    b"statistics",
    b"y" * 3900,
]
STREAMED = [
    b"lucid.rec.3.mallory",
    b"lucid.chunk.recorded.3",
    b"lucid.chunk.chunked.3",
    b"lucid.chunk.redriven.3",
]
STREAMED += [b"lucid.chunk.stored.3", b"lucid.lifecycle", b"lucid.hosts", b"lucid.dead.chunk.3"]


async def goes_through(world: World, session: str, path: Path) -> None:
    host = await world.start(session)
    await host.record(12)
    await host.final()
    await world.until(session, "STOPPED")
    assert (await verified(world, session, path)).totals.fragments == len(host.sent)


@pytest.mark.parametrize("when", ["before", "while it runs"])
async def test_no_name_of_a_message_stops_anybody(server: NatsServer, tmp_path: Path, when: str) -> None:
    """Breaks: one message of one host, and no recording of any other is ever stored again."""
    odd = [b"PUB %s.%s acks 2\r\n{}\r\n" % (under, name) for under in STREAMED for name in ODD]
    if when == "before":
        jet = await connect(server.url, name="first")
        await topology.declare(jet, 2 << 30)
        await send_raw(server, *odd, acks=len(odd))
        await jet.close()
    async with system(server, tmp_path) as world:
        if when != "before":
            await send_raw(server, *odd, acks=len(odd))
        await goes_through(world, "demo-01", tmp_path)


async def test_no_request_stops_who_answers_commands(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: one message, and for minutes nobody can begin, stop or list a session."""
    list_ = subjects.command("list").encode()
    async with system(server, tmp_path, worker=False) as world:
        await send_raw(
            server,
            b"HPUB %s 1 1\r\nx\r\n" % list_,
            b"HPUB %s 15 15\r\nNATS/1.0 \xff\xff\r\n\r\n\r\n" % list_,
            b"PUB %s \xff 2\r\n{}\r\n" % list_,
            b"PUB %s x\x0by 2\r\n{}\r\n" % list_,
        )
        await asyncio.wait_for(world.answered(), PATIENCE_S)


async def test_names_that_look_the_same_are_counted_once(server: NatsServer, jet: Jet) -> None:
    """Breaks: the conductor asks the server for ever."""
    await jet.declare(StreamSpec("R", ("r.*",), 1 << 24))
    names = (b"\xff", b"\xfe", b"a")
    await send_raw(server, *(b"PUB r.%s acks 2\r\nhi\r\n" % name for name in names), acks=len(names))
    async with asyncio.timeout(PATIENCE_S):
        assert (await jet.subject_counts("R", "r.*"))["r.a"] == 1
