"""What all recordings of one process share: connection, memory, threads, and turns at reading."""

from concurrent.futures import Executor
from dataclasses import dataclass, field

from handlers.stages.record.admit import EndKeys
from schemas.ports import Jet
from streams.pipeline.chunk_memory import ChunkMemory
from streams.pipeline.record.side_tasks import SideTasks
from streams.scheduling.fair_slots import FairSlots

WALKS_AT_ONCE, WALKS_OF_HOST = 2, 1
"""Sessions that read from the stream at once: more, and the server cuts the connection of all."""


@dataclass(slots=True)
class Shared:
    """One for each process."""

    jet: Jet
    claims: ChunkMemory
    threads: Executor
    """They check signatures, and nothing else."""
    aside: SideTasks
    end_keys: EndKeys
    held_bytes: int = 0
    """Of fragments that sessions hold while they are behind (streams.pipeline.record.held_fragments)."""
    walks: FairSlots = field(default_factory=lambda: FairSlots(WALKS_AT_ONCE, WALKS_OF_HOST))
