"""Records one session in this process: keeps its fold and its position in the stream.

1. Nothing is acknowledged. The last `recorded` event is the checkpoint and contains the whole fold.
2. Folding is synchronous: no other task runs between a fragment and its outputs.
3. While the session is behind, new fragments are held within HELD_BYTES, or dropped and read again.
4. A session falls behind at its start, or when its host has too many chunks under way.
   It also falls behind when it exceeds its share of one read, or when many of its fragments are refused.
5. If another owner has recorded on (`Checkpoints` finds out), our fold is void: theirs is restored.
6. A paused session folds nothing: its fragments stay in the stream. An ending (FINAL or END) ends the pause;
   everything up to it is folded.
7. While the pipeline of a session is paused, its fragments stay in the stream, unchecked, its ending too.
8. An error that does not pass stops this session for RETRY_S and is logged; it reaches no other session.

A crash anywhere loses only memory: the next owner restores the fold from the checkpoint and reads on.
"""

import asyncio
import time
from collections.abc import Sequence
from itertools import count

from handlers.stages.record import pieces
from handlers.stages.record.admit import Arrival, Unfit, admit_all
from handlers.stages.record.fold import Fold
from handlers.stages.record.pieces import FoldedFragment, Identity
from schemas import subjects
from schemas.config.logs import logger
from schemas.format.fragment import Fragment, Kind
from schemas.ports.messages import Message
from streams.pipeline.record.checkpoints import Checkpoints, log_failure, passes, restore
from streams.pipeline.record.chunk_traces import ChunkTraces
from streams.pipeline.record.held_fragments import HeldFragments
from streams.pipeline.record.outputs import Outputs
from streams.pipeline.record.refusals import DEAD_LETTERS, Refusals
from streams.pipeline.record.shared import Shared
from streams.pipeline.record.subject_reader import SubjectReader
from streams.scheduling.retry import retry

RETRY_S = 60.0
READ_SHARE, SUSPECT_SHARE = 256, 16
"""Messages of one session checked per read; fewer for a session with many refusals."""
TURN = 64
"""Fragments that are folded before other tasks run."""

log = logger("lucid.record")


class Recording:
    """One session's fold in this process. Used from one event loop only."""

    def __init__(self, shared: Shared, identity: Identity, host_key: bytes) -> None:
        self.identity = identity
        self.subject = subjects.recording(identity.host, identity.session)
        self._shared, self._host_key = shared, host_key
        self._fold = Fold(identity)
        self._refusals = Refusals(shared, identity)
        self._stream = SubjectReader(shared, identity, self.look)
        self._checkpoints = Checkpoints(shared.jet, identity.session, self._void)
        self._traces = ChunkTraces(shared.jet.tracer, identity, shared.trace_quota)
        self._outputs = Outputs(shared, identity, self._checkpoints, self._refusals, self._traces)
        self._position = 0
        """Stream sequence of the last message that was folded, or checked and not needed."""
        self._heard_us = 0
        """Server time at which the newest folded fragment of the host was stored."""
        self._read_up_to = 0
        """Fragments up to this sequence are read from the stream again."""
        self._held = HeldFragments(shared)
        self._catching: asyncio.Task[None] | None = None
        self._is_void = self._paused = self._ending_seen = self._stalled = self._closed = False
        self._halted, self._failure = False, ""
        """Whether the pipeline of the session is paused; the text of the last error."""

    @property
    def full(self) -> bool:
        """Whether too many events wait to be appended, or too many chunks of its host are under way."""
        return self._checkpoints.full or self._shared.chunk_memory.full(self.identity.host)

    @property
    def suspect(self) -> bool:
        """Whether so many fragments were refused that the next ones are checked apart, and slowly."""
        return self._refusals.count >= DEAD_LETTERS

    @property
    def progress(self) -> tuple[int, int] | None:
        """Position in the stream, and the time at which the host was last heard (µs; 0: unknown)."""
        return None if self._is_void or self._closed else (self._position, self._heard_us)

    def look(self, messages: Sequence[Message]) -> list[Arrival]:
        """Check messages of this session; runs in a thread."""
        return admit_all(messages, self._host_key, self._shared.end_keys)

    def take(self, arrival: Arrival) -> None:
        """Fold a new message, or hold or drop it while the session is behind."""
        if self._closed:
            return
        if self._halted:
            self.leave(arrival.seq)
            return
        if self._paused and arrival.is_ending(self.identity.uid):
            self._ending_seen = True
            self.pause(False)
        if self._catching is None and not self._paused:
            try:
                self._take(arrival)
            except Exception:
                log.exception("recording_failed", session=self.identity.session)
                self._is_void = True
                self.catch_up(arrival.seq)
        elif self._can_hold(arrival.size):
            self._held.add(arrival)
        else:
            self._read_up_to = max(self._read_up_to, arrival.seq)
            self._drop_held()

    def leave(self, up_to: int = 0) -> None:
        """Leave the messages up to a sequence in the stream, and read them later in the background."""
        if up_to > self._position:
            self._read_up_to = max(self._read_up_to, up_to)
            self._drop_held()
        if not self._paused and not self._halted:
            self._begin_catching(is_valid=True)

    def leaves(self, size: int, looked: int) -> bool:
        """Whether a message stays in the stream, unchecked. looked: messages of this read checked so far."""
        enough = looked >= (SUSPECT_SHARE if self.suspect else READ_SHARE)
        late = self._catching is not None and not self._can_hold(size)
        # While the recording is paused, an ending must be found.
        return self._halted or (not self._paused and (enough or late))

    def catch_up(self, up_to: int = 0) -> None:
        """Restore the fold from its checkpoint and read the stream up to a sequence, in the background."""
        self._read_up_to = max(self._read_up_to, up_to)
        self._begin_catching()

    def pause(self, paused: bool) -> None:
        """Stop folding, so that fragments stay in the stream; or go on with those that came meanwhile."""
        self._paused = paused and not self._ending_seen
        if not self._paused and self._read_up_to > self._position:
            self.catch_up()

    def halt(self, halted: bool) -> None:
        """Leave all fragments in the stream, unread; or take them again, beginning at the checkpoint."""
        if halted and not self._halted:
            # The fold is dropped, so that a long halt keeps no open chunk in memory.
            self._halted = self._is_void = True
            # Fragments that were folded after the checkpoint are not in it: they are read again.
            self._read_up_to = max(self._read_up_to, self._position)
            self._drop_held()
            self._shared.chunk_memory.forget_open(self.identity.uid)
        elif self._halted and not halted:
            self._halted = False
            self.catch_up()

    def released(self, chunks: int) -> None:
        """The fragments of the first `chunks` chunks are purged: a fold that has not closed them is void."""
        if chunks > self._fold.next_index:
            self._void()

    async def close(self) -> None:
        """Stop working on this session. Only memory is lost."""
        self._closed = True
        if self._catching is not None:
            self._catching.cancel()
            await asyncio.gather(self._catching, return_exceptions=True)
        await self._checkpoints.close()
        await self._refusals.close()
        self._drop_held()
        self._shared.chunk_memory.forget_open(self.identity.uid)

    def _can_hold(self, size: int) -> bool:
        """Whether a message of this size can be held until the session has caught up."""
        return not self._paused and not self._stalled and self._held.fits(size)

    def _begin_catching(self, *, is_valid: bool = False) -> None:
        """is_valid: the fold need not be restored."""
        if self._catching is None and not self._closed:
            catching = self._catch_up(is_valid)
            self._catching = asyncio.create_task(catching, name=f"catch-up {self.identity.session}")

    async def _catch_up(self, is_valid: bool) -> None:
        try:
            while not self._closed:
                try:
                    is_stale, is_valid = not is_valid or self._is_void, False
                    if is_stale:
                        await retry(self._restore, when=passes)
                    if await self._read_on() and not await retry(self._ended_in_pause):
                        return
                except Exception as error:
                    self._failure = log_failure(self.identity.session, error, RETRY_S, self._failure)
                    self._stalled = True
                    self._read_up_to = max(self._read_up_to, self._position)  # read it again
                    self._drop_held()
                    await asyncio.sleep(RETRY_S)
                    self._stalled = False
        finally:
            self._catching, self._failure = None, ""

    async def _read_on(self) -> bool:
        """Read dropped messages again, then fold the held ones; False: the fold became void meanwhile."""
        while not self._is_void and not self._paused and not self._halted:
            await self._wait_for_space()
            await retry(self._read_stream)
            await self._take_held()
            if self._read_up_to <= self._position and not self._held:
                break  # no await from here to the end of the task: no message is missed
        self._drop_held()
        return not self._is_void

    async def _take_held(self) -> None:
        for number in count(1):
            if not self._held or self._read_up_to > self._position or self._is_void or self.full:
                return
            self._take(self._held.pop())
            if number % TURN == 0:
                await asyncio.sleep(0)

    async def _wait_for_space(self) -> None:
        await self._checkpoints.wait_for_space()
        await self._shared.chunk_memory.wait_for_space(self.identity.host)

    async def _restore(self) -> None:
        """Replace the fold by the checkpoint's, in one step after the last await. Raises Unavailable."""
        await self._checkpoints.close()
        self._is_void = False  # before reading: a fork found meanwhile voids the restored fold, too
        async with self._shared.read_slots.turn(self.identity.host):
            restored = await restore(self._shared.recordings, self.identity, self._stream.look)
        self._shared.chunk_memory.forget_open(self.identity.uid)
        self._fold, self._position = restored.fold, restored.fold.at
        self._outputs.known = restored.fold.state()
        self._checkpoints.restart(restored.event_seq)
        self._traces.restart(restored.traceparents)
        for arrival in restored.arrivals:
            self._keep(arrival)
            self._note_heard(arrival.message)
        if not self._fold.ended:
            self._outputs.emit(self._fold, self._fold.settle_waiting())

    async def _ended_in_pause(self) -> bool:
        """Look for an ending while paused. True: there is one, the pause is over, or the fold is void."""
        if not self._paused or self._halted:
            return False
        at = self._position
        while self._paused and not self._halted and at < self._read_up_to and not self._is_void:
            arrivals, at = await self._stream.read_after(at, self._read_up_to)
            if any(arrival.is_ending(self.identity.uid) for arrival in arrivals):
                self._ending_seen, self._paused = True, False
        return self._is_void or not self._paused

    async def _read_stream(self) -> None:
        """Read this session's own subject from the fold's position up to `_read_up_to`."""
        while self._position < self._read_up_to and not self._paused and not self._is_void:
            await self._wait_for_space()
            began_s = time.monotonic()
            arrivals, at = await self._stream.read_after(self._position, self._read_up_to)
            for number, arrival in enumerate(arrivals, 1):
                self._take(arrival)
                if number % TURN == 0:
                    await asyncio.sleep(0)
            self._position = max(self._position, at)
            if self.suspect:  # pause as long as this read took
                await asyncio.sleep(time.monotonic() - began_s)

    def _drop_held(self) -> None:
        self._read_up_to = max(self._read_up_to, self._held.drop())

    def _take(self, arrival: Arrival) -> None:
        if arrival.seq <= self._position or self._is_void:
            return
        self._position = arrival.seq
        if isinstance(arrival.found, Exception):
            raise arrival.found
        if isinstance(arrival.found, Unfit):
            ending = arrival.is_ending(self.identity.uid)
            self._refusals.refuse(self._fold, arrival.message, arrival.found, is_ending=ending)
            return
        self._traces.note(arrival.seq, arrival.message.headers.get("traceparent", ""))
        outputs = self._fold.take(FoldedFragment.of(arrival.seq, arrival.found))
        begins = pieces.closes(outputs) and self._fold.ends_open_chunk(arrival.seq)
        if not begins:
            self._keep(arrival)
        if arrival.found.header.kind is not Kind.END and pieces.is_taken(outputs, arrival.seq):
            self._note_heard(arrival.message)
        self._outputs.emit(self._fold, outputs)
        if begins:
            self._keep(arrival)  # after `close`: it belongs to the chunk that it begins

    def _note_heard(self, message: Message) -> None:
        self._heard_us = max(self._heard_us, message.stream_time_ns // 1000)

    def _keep(self, arrival: Arrival) -> None:
        if isinstance(arrival.found, Fragment) and arrival.found.header.kind is Kind.DATA:
            self._shared.chunk_memory.add(self.identity.uid, self.identity.host, arrival.seq, arrival.found)

    def _void(self) -> None:
        """Another owner recorded on: drop our fold, and restore from their checkpoint."""
        self._is_void = True
        log.info("fold_void", session=self.identity.session, reason="another owner recorded on")
        self.catch_up(self._position)
