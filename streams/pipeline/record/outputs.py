"""Carries out the outputs of one session's fold: events to append, fragments to keep, drop or refuse."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from handlers.stages.record import pieces
from handlers.stages.record.fold import Fold
from handlers.stages.record.pieces import Identity, Output
from schemas.config.logs import logger
from schemas.events.chunk import Ended, FoldState, Recorded
from streams.event_store.chunk_log import data_seqs
from streams.pipeline.record.checkpoints import Checkpoints
from streams.pipeline.record.chunk_traces import ChunkTraces
from streams.pipeline.record.refusals import Refusals
from streams.pipeline.record.shared import Shared
from streams.scheduling.threads import is_slow

log = logger("lucid.record")


@dataclass(slots=True)
class Outputs:
    """One for each session. Nothing here awaits: no other task runs between a fragment and its outputs."""

    shared: Shared
    identity: Identity
    checkpoints: Checkpoints
    refusals: Refusals
    traces: ChunkTraces
    known: FoldState | None = None
    """The fold at the last closed chunk, for measurements; None: not known."""

    def emit(self, fold: Fold, outputs: Sequence[Output]) -> None:
        """Carry out the outputs of one step of the fold."""
        chunk_memory, uid, session = self.shared.chunk_memory, self.identity.uid, self.identity.session
        for output in outputs:
            match output:
                case Recorded():
                    chunk_memory.close(output, data_seqs(output), slow=is_slow(self.identity.settings))
                    self.checkpoints.append(output, self.traces.close(output))
                    self.shared.measurements.recorded(output, self.known)
                    self.known = output.state
                case Ended():
                    chunk_memory.forget_open(uid)
                    counts = {"fragments": output.fragments, "duplicates": fold.duplicates}
                    log.info("recording_ended", session=session, refused=self.refusals.count, **counts)
                    self.checkpoints.append(output)
                    self.shared.measurements.ended(output)
                case pieces.Refused(fragment, code, message):
                    above = self._drop(fragment)
                    self.refusals.dead_letter(fold, fragment.stream_seq, code, message, fragment.proof, above)
                case pieces.Duplicate(fragment):
                    self._drop(fragment)
                case pieces.LateDuplicate(fragment):
                    above = self._drop(fragment)
                    self.shared.side_tasks.add(partial(self.refusals.compare_late, fold, fragment, above))
        self.refusals.watch(fold)

    def _drop(self, fragment: pieces.FoldedFragment) -> str:
        """Forget a fragment that the fold has not taken; return its traceparent."""
        self.shared.chunk_memory.drop(self.identity.uid, fragment.stream_seq)
        return self.traces.drop(fragment.stream_seq)
