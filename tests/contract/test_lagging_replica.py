"""What is read while a replica lags behind the leader: a stand-in for it, and a real cluster of three."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infra.jetstream import Jet, StreamSpec, connect
from infra.nats_server.server import NatsServer
from tests.support.machine.waiting import PATIENCE_S
from tests.support.servers.cluster import SERVERS, cluster

LOG = StreamSpec("LOG", ("log.>",), 64 << 20, replicas=1)
HELD, WRITTEN = 4, 10
"""Of so many messages the replica holds the first ones."""
ROUNDS, LEFT_OUT = 5, 40


@pytest.fixture
async def lagging(server: NatsServer) -> AsyncIterator[Jet]:
    """A connection whose direct gets are answered by a copy of LOG that misses the newest messages."""
    jet = await connect(server.url, name="lagging", timeout_s=PATIENCE_S)
    await jet.declare(LOG)
    for n in range(WRITTEN):
        await jet.publish("log.a", str(n).encode())
    copy = {"name": "COPY", "mirror": {"name": "LOG"}, "storage": "file", "num_replicas": 1}
    await jet.request("$JS.API.STREAM.CREATE.COPY", json.dumps({**copy, "allow_direct": True}).encode())
    copied = jet.follow("COPY", ["log.a"])
    for _ in range(WRITTEN):
        await anext(copied)
    await copied.close()
    for seq in range(HELD + 1, WRITTEN + 1):
        await jet.delete("COPY", seq)
    send = jet._conn.send

    async def send_to_copy(subject: str, *args: object, **kwargs: object) -> None:
        await send(subject.replace("DIRECT.GET.LOG", "DIRECT.GET.COPY"), *args, **kwargs)  # type: ignore[arg-type]

    jet._conn.send = send_to_copy  # type: ignore[method-assign]
    assert (await jet.batch("LOG", "log.a"))[0][-1].seq == HELD
    yield jet
    await jet.close()


async def test_a_message_that_a_replica_does_not_hold_yet_is_read_from_the_leader(lagging: Jet) -> None:
    """Breaks: `chunk.source_gone`, a dead chunk and a session in ERROR, although nothing is gone."""
    message = await lagging.get("LOG", WRITTEN)
    assert message is not None
    assert (message.seq, message.data) == (WRITTEN, str(WRITTEN - 1).encode())


async def test_many_messages_are_found_although_a_replica_lags(lagging: Jet) -> None:
    """Breaks: a chunk is dead-lettered because a follower is a moment late."""
    wanted = [1, 3, HELD, HELD + 1, HELD + 2, WRITTEN]
    found = await lagging.get_many("LOG", wanted)
    assert sorted(found) == wanted
    assert {int(message.data) + 1 for message in found.values()} == set(wanted)


async def test_everything_is_read_although_a_replica_lags(lagging: Jet) -> None:
    """Breaks: a seal finds no `ended` or too few chunks, and brings a good session to ERROR."""
    assert [m.seq async for m in lagging.read_all("LOG", "log.a")] == list(range(1, WRITTEN + 1))
    assert [m.seq async for m in lagging.read_all("LOG", "log.*", WRITTEN)] == [WRITTEN]


async def test_what_the_leader_does_not_hold_either_is_absent(lagging: Jet) -> None:
    """Breaks: an erased key is found again, or reading never ends."""
    await lagging.delete("LOG", WRITTEN)
    assert await lagging.get("LOG", WRITTEN) is None
    assert sorted(await lagging.get_many("LOG", [HELD, WRITTEN, WRITTEN + 7])) == [HELD]
    assert [m.seq async for m in lagging.read_all("LOG", "log.a")] == list(range(1, WRITTEN))


async def test_what_a_cluster_acknowledged_is_read_at_once_through_any_server(tmp_path: Path) -> None:
    """Breaks: the same, with three real servers, one of which was stopped and comes back."""
    async with cluster(tmp_path) as servers:
        jets = [await connect(server.url, name="test", timeout_s=PATIENCE_S) for server in servers]
        await jets[0].declare(StreamSpec("LOG", ("log.>",), 64 << 20, replicas=SERVERS))
        for _ in range(ROUNDS):
            info = json.loads(await jets[0].request("$JS.API.STREAM.INFO.LOG", b""))
            leader = int(info["cluster"]["leader"][-1])
            late = (leader + 1) % SERVERS
            os.kill(servers[late].pid, signal.SIGSTOP)
            acks = [await jets[leader].publish("log.a", bytes(200_000)) for _ in range(LEFT_OUT)]
            seqs = [ack.seq for ack in acks]
            asked = [asyncio.ensure_future(jets[late].get("LOG", seq)) for seq in seqs]
            os.kill(servers[late].pid, signal.SIGCONT)
            assert [message.seq if message else 0 for message in await asyncio.gather(*asked)] == seqs
            assert sorted(await jets[late].get_many("LOG", seqs)) == seqs
            assert [m.seq async for m in jets[late].read_all("LOG", "log.a", seqs[0])] == seqs
        for jet in jets:
            await jet.close()
