"""Holds the parts that all recordings of one process share: connection, memory, threads, turns at reading."""

from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial

from handlers.stages.record.admit import EndKeys
from schemas.buffers import Bytes
from schemas.config.logs import logger
from schemas.events.chunk import Dead
from schemas.ports import Jet
from schemas.ports.metrics import NO_METER, Meter
from streams.event_store.dead_letters import BODY_BYTES, publish_dead_letter
from streams.event_store.recordings import Recordings
from streams.pipeline.chunk_memory import ChunkMemory
from streams.pipeline.measurements import RecordMeasurements
from streams.pipeline.record.side_tasks import SideTasks
from streams.pipeline.record.trace_quota import TraceQuota
from streams.scheduling.fair_slots import FairSlots

READS_AT_ONCE, READS_OF_HOST = 2, 1
"""Sessions that read from the stream at once, and those of one host. With more of them the server would owe
our connection more than it allows, and cut it off."""

log = logger("lucid.record")


@dataclass(slots=True)
class Shared:
    """One for each process."""

    recordings: Recordings
    chunk_memory: ChunkMemory
    threads: Executor
    """They check signatures and do no other work."""
    end_keys: EndKeys
    meter: Meter = NO_METER
    measurements: RecordMeasurements = field(init=False)
    trace_quota: TraceQuota = field(init=False)
    side_tasks: SideTasks = field(default_factory=SideTasks)
    held_bytes: int = 0
    """Of fragments that sessions hold while they are behind (held_fragments.py)."""
    read_slots: FairSlots = field(default_factory=lambda: FairSlots(READS_AT_ONCE, READS_OF_HOST))

    def __post_init__(self) -> None:
        self.measurements = RecordMeasurements(self.meter)
        self.trace_quota = TraceQuota(self.measurements.trace_left_out)

    @property
    def jet(self) -> Jet:
        return self.recordings.jet

    def dead_letter(
        self, session: str, seq: int, code: str, message: str, body: Bytes, traceparent: str = ""
    ) -> None:
        """Put a refused fragment into DEAD, as a side task. seq: of its message.

        traceparent: its letter is in this trace; empty: in none.
        """
        self.measurements.dead(code)
        log.warning("fragment_refused", session=session, seq=seq, code=code)
        kept = bytes(body[:BODY_BYTES])
        dead = Dead(stage="record", session=session, seq=seq, code=code, message=message, body=kept)
        self.side_tasks.add(partial(publish_dead_letter, self.jet, dead, traceparent))
