"""Measures the six stages of one worker: chunks, bytes, times, retries, dead letters, memory.

1. A chunk costs a few additions a stage. A fragment costs nothing: its counts are read off a closed chunk.
2. Every series of a stage begins at 0, so that the first failure is a rise.
3. The exemplar of a time is the trace of its chunk, if that is sampled.
"""

from collections.abc import Awaitable, Callable

from handlers.seal.manifest import final_tails
from schemas.errors import EvidenceFalse
from schemas.events.chunk import (
    Chunked,
    Compressed,
    Encrypted,
    Ended,
    FoldState,
    Recorded,
    StageEvent,
    Stored,
)
from schemas.format.fragment import Kind
from schemas.format.index import Entry, fragment_rows
from schemas.ports.messages import Message
from schemas.ports.metrics import Meter, count_error, count_false, trace_id_of
from streams.pipeline.chunk_memory import ChunkMemory
from streams.pipeline.open_chunks import now_s

CHUNK_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""Bounds of the time from a closed chunk to a stored one, s."""
OUTAGE, FAILURE, SLOW = "outage", "failure", "slow"
"""Reasons of a retry."""


Job = Callable[[Message], Awaitable[StageEvent | None]]


class MadeChunks:
    """The chunks and dead letters of one stage."""

    def __init__(self, meter: Meter, stage: str) -> None:
        self._meter = meter
        self._chunks = meter.counter("lucid_stage_chunks", "Chunks that a stage has done.", stage=stage)
        self._bytes = meter.counter("lucid_stage_bytes", "Bytes that a stage has made.", stage=stage)
        self._dead = meter.counter(
            "lucid_stage_dead_letters", "Messages that became dead letters.", stage=stage
        )

    def made(self, result: StageEvent | Recorded) -> None:
        """The stage has made one chunk."""
        self._chunks.add()
        self._bytes.add(_bytes_of(result))

    def dead(self, code: str) -> None:
        """A message became a dead letter."""
        self._dead.add()
        count_error(self._meter, code)


class StageMeasurements(MadeChunks):
    """One stage of one worker, behind `record`."""

    def __init__(self, meter: Meter, stage: str) -> None:
        super().__init__(meter, stage)
        self._seconds = meter.histogram(
            "lucid_stage_seconds", "Time of a stage's job, without waiting.", stage=stage
        )
        self._waits = meter.histogram(
            "lucid_stage_wait_seconds", "Wait of a message for memory and a worker.", stage=stage
        )
        self._retries = {
            why: meter.counter("lucid_stage_retries", "Jobs that are tried again.", stage=stage, why=why)
            for why in (OUTAGE, FAILURE, SLOW)
        }
        self._redelivered = meter.counter(
            "lucid_stage_redelivered", "Messages that were delivered before.", stage=stage
        )
        self._false = count_false(meter, stage)

    def taken(self, message: Message) -> None:
        """A message was taken."""
        if message.deliveries > 1:
            self._redelivered.add()

    def began(self, waited_s: float) -> None:
        """A job has a worker."""
        self._waits.observe(waited_s)

    def done(self, message: Message, result: StageEvent | Recorded | None, seconds: float) -> None:
        """A job has its outcome, and the result is published."""
        self._seconds.observe(seconds, trace_id_of(message.headers))
        if result is not None:
            self.made(result)

    def retried(self, why: str) -> None:
        """A job is tried again, for one of the reasons above."""
        self._retries[why].add()

    def failed(self, error: Exception) -> None:
        """A job of the stage has failed for good."""
        if isinstance(error, EvidenceFalse):
            self._false.add()


class RecordMeasurements:
    """The stage `record` of one worker."""

    def __init__(self, meter: Meter) -> None:
        self._stage = MadeChunks(meter, "record")
        self._fragments = meter.counter("lucid_fragments", "Fragments inside closed chunks.")
        self._lost = meter.counter("lucid_fragments_lost", "Fragments that never came.")
        self._gaps = {
            by: meter.counter("lucid_gaps", "Gaps in recordings.", declared_by=by)
            for by in ("host", "platform")
        }
        self._refused = meter.counter("lucid_fragments_refused", "Fragments that were refused.")
        self._left_out = meter.counter(
            "lucid_traces_left_out", "Traces of chunks that were not kept: their host has too many."
        )

    def recorded(self, event: Recorded, before: FoldState | None) -> None:
        """A chunk was closed. before: the fold at the last closed chunk; None: it is not known."""
        self._stage.made(event)
        self._fragments.add(len(event.stream))
        if before is None:
            return
        lost = missing(event.state) - missing(before)
        self._gaps["host"].add(max(event.state.host_gaps - before.host_gaps, 0))
        if lost > 0:  # a chunk begins behind each hole: a gap fragment of the host stands there, or none
            self._lost.add(lost)
            self._gaps["platform"].add(fragment_rows(event.rows)[0].kind is not Kind.GAP)

    def ended(self, event: Ended) -> None:
        """A recording has ended: its final may name fragments behind the last chunk of a track."""
        came = {track.id: track.next_seq for track in event.state.tracks}
        holes = [tail.last_seq + 1 - came.get(tail.id, 0) for tail in final_tails(event)]
        self._lost.add(sum(hole for hole in holes if hole > 0))
        self._gaps["platform"].add(sum(hole > 0 for hole in holes))

    def refused(self) -> None:
        """A fragment was refused."""
        self._refused.add()

    def trace_left_out(self) -> None:
        """The trace of a chunk is not kept, though its host has sampled it."""
        self._left_out.add()

    def dead(self, code: str) -> None:
        """A refused fragment became a dead letter."""
        self._stage.dead(code)


class ChunkTimes:
    """The time of each chunk in this process, from its close to its place in the store."""

    def __init__(self, meter: Meter, memory: ChunkMemory) -> None:
        self._memory = memory
        self._began_s: dict[int, float] = {}
        """By stream sequence of messages in flight."""
        self._seconds = meter.histogram(
            "lucid_chunk_seconds", "From a closed chunk, or its first job here, to a stored one.", CHUNK_S
        )

    def noting(self, job: Job) -> Job:
        """The same job of the last stage; it notes when its chunk began.

        The event `stored` makes the memory forget the chunk, often before the message is acknowledged.
        """

        async def noted(message: Message) -> StageEvent | None:
            result = await job(message)
            work = self._memory.find(result.uid, result.index) if result is not None else None
            if work is not None:
                self._began_s[message.seq] = work.began_s
            return result

        return noted

    def stored(self, message: Message) -> None:
        """The event `stored` of this message's chunk is in the stream."""
        began_s = self._began_s.pop(message.seq, None)
        if began_s is not None:
            self._seconds.observe(now_s() - began_s, trace_id_of(message.headers))

    def forget(self, message: Message) -> None:
        """The job is done again, or never: its result was not published."""
        self._began_s.pop(message.seq, None)


def missing(state: FoldState) -> int:
    """How many fragments before the last closed chunk never came."""
    return sum(track.next_seq for track in state.tracks) - state.fragments


def measure_memory(meter: Meter, memory: ChunkMemory) -> None:
    """Show credit and memory of chunks, and their limits."""
    fast, slow, codec = memory.credit, memory.slow_credit, ("codec",)
    rows = meter.rows
    rows("lucid_credit_used_bytes", "Bytes of chunks under way.", codec,
         lambda: {("fast",): fast.used, ("slow",): slow.used})  # fmt: skip
    rows("lucid_credit_limit_bytes", "Bytes of chunks that may be under way.", codec,
         lambda: {("fast",): fast.limit, ("slow",): slow.limit})  # fmt: skip
    rows("lucid_credit_waiting", "Chunks that wait for credit.", codec,
         lambda: {("fast",): fast.waiting, ("slow",): slow.waiting})  # fmt: skip
    rows("lucid_record_memory_bytes", "Bytes of chunks that no job has begun.", ("kind",),
         lambda: {("open",): memory.open_bytes, ("closed",): memory.closed_bytes})  # fmt: skip
    meter.value("lucid_record_memory_limit_bytes", "Bytes that these may have.", lambda: memory.record_limit)


def _bytes_of(result: StageEvent | Recorded) -> int:
    match result:
        case Recorded() | Chunked():
            return result.plain
        case Compressed():
            return result.payload
        case Encrypted():
            return result.sealed
        case Stored():
            return Entry.parse(result.entry).sealed
    return 0
