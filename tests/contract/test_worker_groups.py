"""What happens to the stages' work when the number of worker groups changes: real consumers, no worker."""

import asyncio
import itertools
import json
from collections.abc import Iterable

import pytest

from infra.jetstream import Jet, PullConsumer
from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.subjects import CHUNKS, PARTITIONS
from streams.event_store import topology
from streams.pipeline.runner import ACK_WAIT_S
from streams.pipeline.stages import STAGES, consumer
from streams.pipeline.worker import join
from tests.support.machine.waiting import PATIENCE_S

STAGE = next(stage for stage in STAGES if stage.verb == "compress")
NAMES = {subjects.partition(name): name for name in (f"s-{n}" for n in range(1000))}
"""A session of each partition."""


@pytest.fixture
async def chunks(server: NatsServer, jet: Jet) -> Jet:
    await topology.declare(jet, server.max_file)
    return jet


async def ask(jet: Jet, count: int) -> list[int]:
    """Work for every partition in turn; its sequences."""
    names = itertools.islice(itertools.cycle(NAMES[p] for p in range(PARTITIONS)), count)
    return [(await jet.publish(subjects.chunk(STAGE.reads[0], name), b"{}")).seq for name in names]


async def joined(jet: Jet, groups: int, only: Iterable[int] | None = None) -> list[PullConsumer]:
    """Readers of all groups, or of some: as when their workers start."""
    readers = []
    for group in only if only is not None else range(groups):
        name = await join(jet, STAGE, group, groups)
        readers.append(jet.pull(CHUNKS, name, batch=1000))
    return readers


async def work(readers: list[PullConsumer], *, leave: Iterable[int] = ()) -> set[int]:
    """Take everything that is delivered and acknowledge it, but for `leave`; then the workers end."""
    left = set(leave)

    async def drain(reader: PullConsumer) -> set[int]:
        seen = set[int]()
        async with asyncio.timeout(PATIENCE_S):
            while await owed(reader) > len(seen & left):
                message = await reader.get()
                seen.add(message.seq)
                if message.seq not in left:
                    await reader.ack_sync(message, PATIENCE_S)
        await reader.close()
        return seen

    return set().union(*await asyncio.gather(*map(drain, readers)))


async def owed(reader: PullConsumer) -> int:
    """How many messages of its consumer are not acknowledged."""
    asked = f"$JS.API.CONSUMER.INFO.{CHUNKS}.{reader._consumer}"
    info = json.loads((await reader._conn.request(asked)).data)
    return int(info["num_pending"]) + int(info["num_ack_pending"])


async def groups_held(jet: Jet) -> set[str]:
    return {one.name for one in await jet.consumers(CHUNKS)}


def groups_of(groups: int) -> set[str]:
    return {consumer(STAGE, group, groups, ACK_WAIT_S).name for group in range(groups)}


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (1, 16), (16, 1), (2, 3), (3, 2)])
async def test_what_was_in_work_is_done_by_the_new_groups_and_what_was_done_is_not(
    chunks: Jet, before: int, after: int
) -> None:
    """Breaks: with a worker more or less, chunks are never stored, or all of them are made again."""
    first = await ask(chunks, 64)
    in_work = first[40::7]
    assert await work(await joined(chunks, before), leave=in_work) == set(first)
    unseen = await ask(chunks, 32)
    seen = await work(await joined(chunks, after))
    assert seen >= {*in_work, *unseen}
    assert not seen & set(first[:40])
    assert await groups_held(chunks) == groups_of(after)
    later = await ask(chunks, 16)
    assert await work(await joined(chunks, before)) >= set(later)
    assert await groups_held(chunks) == groups_of(before)


async def test_a_group_that_never_ran_owes_everything(chunks: Jet) -> None:
    """Breaks: half of the sessions wait for ever, because only one of two workers was ever started."""
    asked = await ask(chunks, 32)
    even = {seq for number, seq in enumerate(asked) if number % 2 == 0}
    assert await work(await joined(chunks, 2, only=[0])) == even
    assert await work(await joined(chunks, 1)) >= set(asked) - even
    more = await ask(chunks, 32)
    assert await work(await joined(chunks, 4, only=[0, 1, 2])) >= {
        seq for number, seq in enumerate(more) if number % 4 != 3
    }
    assert groups_of(1) <= await groups_held(chunks), "what only it owes would be lost"
    assert await work(await joined(chunks, 1)) >= set(more)
    assert await groups_held(chunks) == groups_of(1)


async def test_groups_of_both_numbers_that_run_at_once_lose_nothing(chunks: Jet) -> None:
    """Breaks: workers are replaced one after the other, and an old one's consumer is taken from under it."""
    (old,) = await joined(chunks, 1)
    asked = await ask(chunks, 16)
    first = await asyncio.wait_for(old.get(), PATIENCE_S)
    assert first.seq == asked[0]
    new = await joined(chunks, 2)
    assert await groups_held(chunks) == groups_of(1) | groups_of(2)
    assert await work(new) == set(asked)
    await old.ack_sync(first, PATIENCE_S)
    assert await work([old]) == set(asked[1:])
    await work(await joined(chunks, 2))
    assert await groups_held(chunks) == groups_of(2)


async def test_a_consumer_that_somebody_deleted_begins_where_all_is_owed(chunks: Jet) -> None:
    """Breaks: work that nobody remembers is taken for done."""
    asked = await ask(chunks, 16)
    assert await work(await joined(chunks, 1)) == set(asked)
    (name,) = groups_of(1)
    await chunks.delete_consumer(CHUNKS, name)
    assert await work(await joined(chunks, 1)) == set(asked)
