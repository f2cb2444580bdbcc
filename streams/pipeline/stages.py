"""Lists the six stages: which subjects each reads, which job it runs, which step it publishes. Begin here.

    publisher → RECORDINGS → [record] → recorded → [chunk] → chunked → [compress] → compressed
              → [encrypt] → encrypted → [merkle] → proven → [store] → stored

1. `record` is pipeline/record/ingest.py over handlers/stages/record/fold.py. Every other stage is the loop of
   runner.py over one job of jobs.py, which runs the pure function of the same name in handlers/stages/.
2. A stage reads only `reads` and publishes only `makes` (and DEAD); all are subjects lucid.chunk.<step>.….
3. streams/roles/services.py starts all stages; roles/drivers.py gives each port (schemas/ports) its driver.
"""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from schemas.ports.messages import ConsumerSpec, Message
from schemas.subjects import (
    CHUNKED,
    COMPRESSED,
    ENCRYPTED,
    PARTITIONS,
    PROVEN,
    RECORDED,
    REDRIVEN,
    STORED,
    chunk_filter,
)
from streams.pipeline.jobs import JobMethod, Jobs


class Stage(NamedTuple):
    """One row: `variables` is the prefix of its settings, {STAGE}_WORKERS and so on."""

    verb: str
    reads: tuple[str, ...]
    makes: str
    variables: str
    job: JobMethod | None
    waits: Callable[[Jobs, Message], Awaitable[None]] | None = None
    """The wait for memory, before the job's time begins."""


STAGES = (
    Stage("record", (), RECORDED, "RECORDER", None),
    Stage("chunk", (RECORDED, REDRIVEN), CHUNKED, "CHUNK", Jobs.chunk, Jobs.await_credit),
    Stage("compress", (CHUNKED,), COMPRESSED, "COMPRESSOR", Jobs.compress),
    Stage("encrypt", (COMPRESSED,), ENCRYPTED, "ENCRYPTOR", Jobs.encrypt),
    Stage("merkle", (ENCRYPTED,), PROVEN, "MERKLE", Jobs.merkle),
    Stage("store", (PROVEN,), STORED, "STORAGE", Jobs.store),
)


def partitions(group: int, groups: int) -> tuple[int, ...]:
    """The partitions that worker group `group` of `groups` owns."""
    return tuple(p for p in range(PARTITIONS) if p % groups == group)


def consumer(stage: Stage, group: int, groups: int, ack_wait_s: float) -> ConsumerSpec:
    """The durable consumer of one stage and worker group."""
    owned = partitions(group, groups)
    return ConsumerSpec(
        name=f"{stage.verb}-{group}-of-{groups}",
        filters=tuple(chunk_filter(step, p) for step in stage.reads for p in owned),
        ack_wait_s=ack_wait_s,
        description=f"stage {stage.verb}: reads {', '.join(stage.reads)}, makes {stage.makes}",
    )
