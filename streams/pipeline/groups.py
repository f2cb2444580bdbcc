"""Owns the durable consumers of the worker groups: where a new one begins, when one of another number goes.

Of every consumer this is true: what its filters name up to its floor is done, what is above comes to whoever
reads it. So

1. A new one begins at the lowest floor of what its filters name; of several that know of one, the highest is
   true. Where nobody knows, it begins at the beginning. Doubles may follow, nothing is skipped.
2. One of another number of groups goes when ours cover all that it names, and nobody reads it.
3. Any number of workers may do so at once, and die at any line: what was taken away is made anew by rule 1.
"""

import logging
from dataclasses import replace

from schemas.ports import Jet
from schemas.ports.messages import ConsumerInfo, ConsumerSpec
from schemas.subjects import CHUNKS
from streams.pipeline.runner import ACK_WAIT_S
from streams.pipeline.stages import Stage, consumer

log = logging.getLogger("lucid.groups")


async def join(jet: Jet, stage: Stage, group: int, groups: int) -> str:
    """Make the consumer of one stage and group what it should be; its name."""
    wanted = consumer(stage, group, groups, ACK_WAIT_S)
    known = [one for one in await jet.consumers(CHUNKS) if one.name.startswith(f"{stage.verb}-")]
    await jet.upsert_consumer(CHUNKS, replace(wanted, start_seq=_done(wanted, known) + 1))
    ours = {consumer(stage, number, groups, ACK_WAIT_S).name for number in range(groups)}
    covered = set(wanted.filters).union(*(one.filters for one in known if one.name in ours))
    for one in known:
        if one.name not in ours and one.filters <= covered and not one.is_read:
            await jet.delete_consumer(CHUNKS, one.name)
            log.info("consumer_retired name=%s floor=%d", one.name, one.floor)
    return wanted.name


def _done(wanted: ConsumerSpec, known: list[ConsumerInfo]) -> int:
    """The stream sequence up to which all that the consumer's filters name is done."""
    return min(max((one.floor for one in known if name in one.filters), default=0) for name in wanted.filters)
