"""A stored message says the same to everyone, whatever bytes its sender called headers."""

import asyncio

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from infra.jetstream import Jet, Message, StreamSpec
from infra.nats_server.server import NatsServer
from tests.support.machine.waiting import PATIENCE_S
from tests.support.servers.raw_client import publish_raw

PIECES = [b"\r\n", b"\r\n\r\n", b"\r", b"\n", b"NATS/1.0", b"404 ", b"A: b", b"A", b":", b" ", b"\xff"]
ADDED = [b"Nats-Stream: ", b"Nats-Subject: ", b"Nats-Sequence: 1", b"Nats-Time-Stamp: x"]
BEGINNINGS = [b"", b"NATS/1.0\r\n", b"NATS/1.0 404 "]
UNENDED = [begin + b"A: b" + end for begin in BEGINNINGS for end in (b"", b"\r\n", b"\r", b"\r\nA: c\r\n\r")]
BLOCK = st.builds(
    lambda begin, rest: begin + b"".join(rest),
    st.sampled_from(BEGINNINGS),
    st.lists(st.sampled_from(PIECES + ADDED), min_size=1),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@example(blocks=UNENDED)
@given(blocks=st.lists(BLOCK, min_size=1, max_size=40))
async def test_any_header_block_says_the_same_whichever_way_it_is_read(
    server: NatsServer, jet: Jet, blocks: list[bytes]
) -> None:
    """Breaks: who follows the stream takes what who catches up refuses, and one screen has two recordings."""
    await jet.declare(StreamSpec("RAW", ("raw",), 1 << 30))
    first = (await jet.info("RAW")).last_seq + 1
    await publish_raw(server, "raw", *blocks)
    followed = await follow(jet, first, len(blocks))
    found = [message.headers for message in followed]
    in_batch, _ = await jet.batch("RAW", "raw", first)
    one_by_one = [await jet.get("RAW", message.seq) for message in followed]
    last = await jet.last("RAW", "raw")
    assert [message.headers for message in in_batch] == found
    assert [message.headers for message in one_by_one if message] == found
    assert last is not None
    assert last.headers == found[-1]


async def follow(jet: Jet, first: int, count: int) -> list[Message]:
    follower = jet.follow("RAW", ["raw"], first)
    found: list[Message] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(found) < count:
            item = await anext(follower)
            assert isinstance(item, Message)
            found.append(item)
    await follower.close()
    return found
