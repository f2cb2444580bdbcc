"""Owns the recording of one session in this process: its fold and its place in the stream.

1. Nothing is acknowledged: the last `recorded` event is the checkpoint, and holds the whole fold.
2. Folding is synchronous: between a fragment and what follows from it nothing can slip in.
3. While the session is behind, new fragments are held (HELD_BYTES for all sessions together) or dropped;
   what was dropped is read again from the stream.
4. Another owner may have recorded on (`Checkpoints` says so): then our fold is void, and theirs is taken up.
5. A paused session folds nothing: its fragments stay in the stream. But what has ended cannot rest: the
   recording's ending is looked for, and taken with all that came before it.
6. An error that nobody foresaw stops this session for RETRY_S, is logged, and never reaches another one.
A crash anywhere loses only memory: the next owner restores the fold from the checkpoint and reads on.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial

from handlers.stages.admit import Signers, Unfit
from handlers.stages.fold_terms import Double, Identity, Older, Output, Refused
from handlers.stages.open_chunk import Piece
from handlers.stages.record import Fold
from schemas import subjects
from schemas.buffers import Bytes
from schemas.chunk_events import Ended, Recorded
from schemas.errors import Unavailable
from schemas.fragment import Fragment, Kind
from schemas.jetstream import Message
from schemas.ports import Jet
from streams.arrival import Arrival, look
from streams.aside import Aside
from streams.checkpoints import Checkpoints, patiently
from streams.chunk_log import data_seqs, find_fragment
from streams.claims import Claims
from streams.restore import restore

HELD_BYTES = 16 << 20
WALK_BYTES = 4 << 20
WALKS_AT_ONCE = 2
"""Sessions that read from the stream at once: more, and the server cuts the connection of all."""
DEAD_LETTERS = 100
"""Refused fragments of a session that are kept in DEAD; the others are only counted."""
RETRY_S = 60.0

log = logging.getLogger("lucid.record")


@dataclass(slots=True)
class Shared:
    """What all recordings of a process share."""

    jet: Jet
    claims: Claims
    threads: Executor
    aside: Aside
    signers: Signers
    held_bytes: int = 0
    walks: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(WALKS_AT_ONCE))


class Recording:
    """One session's fold in this process. Used from one event loop only."""

    def __init__(self, shared: Shared, identity: Identity, host_key: bytes) -> None:
        self.identity = identity
        self.subject = subjects.recording(identity.host, identity.session)
        self.invalid = 0
        self._shared, self._host_key = shared, host_key
        self._fold = Fold(identity)
        self._checkpoints = Checkpoints(shared.jet, identity.session, self._void)
        self._position = 0
        """Stream sequence of the last fragment that was folded, or looked at and not needed."""
        self._behind = 0
        """Fragments up to here are read from the stream again."""
        self._held: deque[Arrival] = deque()
        self._catching: asyncio.Task[None] | None = None
        self._is_void = self._paused = self._over = self._stalled = self._closed = False

    @property
    def ended(self) -> bool:
        """The recording has ended, and its last event is appended."""
        return self._fold.ended and not self._checkpoints.waiting

    async def room(self) -> None:
        """Wait until few enough events wait to be appended."""
        await self._checkpoints.room()

    def look(self, messages: Sequence[Message]) -> list[Arrival]:
        """Check messages of this session; runs in a thread."""
        return look(messages, self._host_key, self._shared.signers)

    def take(self, arrival: Arrival) -> None:
        """Fold a message that was followed, or keep it until the session has caught up."""
        if self._closed:
            return
        if self._paused and _is_ending(arrival):
            self._over = True
            self.pause(False)
        if self._catching is None and not self._paused:
            try:
                self._take(arrival)
            except Exception:
                log.exception("recording_failed session=%s", self.identity.session)
                self._is_void = True
                self.catch_up(arrival.seq)
        elif self._paused or self._stalled or self._shared.held_bytes + arrival.size > HELD_BYTES:
            self._behind = max(self._behind, arrival.seq)
            self._drop_held()
        else:
            self._shared.held_bytes += arrival.size
            self._held.append(arrival)

    def catch_up(self, up_to: int = 0) -> None:
        """Restore the fold from its checkpoint and read the stream up to a sequence, in the background."""
        self._behind = max(self._behind, up_to)
        if self._catching is None and not self._closed:
            self._catching = asyncio.create_task(self._catch_up(), name=f"catch-up {self.identity.session}")

    def pause(self, paused: bool) -> None:
        """Stop folding, so that fragments stay in the stream; or go on with what came meanwhile."""
        self._paused = paused and not self._over
        if not self._paused and self._behind > self._position:
            self.catch_up()

    def released(self, chunks: int) -> None:
        """What the first chunks were made of is gone: a fold that has not closed them waits in vain."""
        if chunks > self._fold.next_index:
            self._void()

    async def close(self) -> None:
        """Stop working on this session; nothing that matters is only here."""
        self._closed = True
        if self._catching is not None:
            self._catching.cancel()
            await asyncio.gather(self._catching, return_exceptions=True)
        await self._checkpoints.close()
        self._drop_held()
        self._shared.claims.forget_open(self.identity.uid)

    # catching up

    async def _catch_up(self) -> None:
        try:
            while not self._closed:
                try:
                    await patiently(self._restore)
                    if await self._read_on() and not await patiently(self._ended_in_pause):
                        return
                except Exception:
                    log.exception("recording_failed session=%s again_s=%g", self.identity.session, RETRY_S)
                    self._stalled = True
                    self._behind = max(self._behind, self._position)  # what failed is read again
                    self._drop_held()
                    await asyncio.sleep(RETRY_S)
                    self._stalled = False
        finally:
            self._catching = None

    async def _read_on(self) -> bool:
        """Read what was dropped, then take what was held; False when our fold became void meanwhile."""
        while not self._is_void and not self._paused:
            await patiently(self._walk)
            while self._held and self._behind <= self._position and not self._is_void:
                arrival = self._held.popleft()
                self._shared.held_bytes -= arrival.size
                self._take(arrival)
            if self._behind <= self._position and not self._held:
                break  # nothing awaits from here to the end of the task: nothing slips between
        self._drop_held()
        return not self._is_void

    async def _restore(self) -> None:
        """Take up the fold that the checkpoint holds; all of it at once, after the last await."""
        await self._checkpoints.close()
        self._is_void = False  # what voids the fold while it is read is about what was read, too
        async with self._shared.walks:
            restored = await restore(self._shared.jet, self.identity, self._look)
        self._shared.claims.forget_open(self.identity.uid)
        self._fold, self._position = restored.fold, restored.fold.at
        self._checkpoints.restart(restored.event_seq)
        for arrival in restored.arrivals:
            self._hold(arrival)
        if not self._fold.ended:
            self._emit(self._fold.drain())

    async def _ended_in_pause(self) -> bool:
        """Whether we rest although an ending stands in the stream: then there is more to read.

        So there is when, while we looked, the session was resumed or our fold became void.
        """
        if not self._paused:
            return False
        at = self._position
        while self._paused and at < self._behind and not self._is_void:
            arrivals, at = await self._read_after(at)
            if any(map(_is_ending, arrivals)):
                self._over, self._paused = True, False
        return self._is_void or not self._paused

    async def _walk(self) -> None:
        """Read this session's own subject from where the fold is up to `_behind`."""
        while self._position < self._behind and not self._paused and not self._is_void:
            await self._shared.claims.room()
            await self.room()
            arrivals, at = await self._read_after(self._position)
            for arrival in arrivals:
                self._take(arrival)
            self._position = max(self._position, at)

    async def _read_after(self, at: int) -> tuple[list[Arrival], int]:
        """What came after `at`, up to `_behind` or as far as one answer goes; and how far that is."""
        jet, up_to = self._shared.jet, self._behind  # it may grow; what it grows by is not in these messages
        async with self._shared.walks:
            messages, more = await jet.batch(subjects.RECORDINGS, self.subject, at + 1, max_bytes=WALK_BYTES)
            arrivals = await self._look([message for message in messages if message.seq <= up_to])
        at = min(messages[-1].seq, up_to) if messages else at
        if more or at == up_to:
            return arrivals, at
        # A short answer may come from a replica that lags: the leader knows what is there.
        last = await jet.last(subjects.RECORDINGS, self.subject)
        if last is not None and at < last.seq <= up_to:
            raise Unavailable(f"{self.subject} is not readable up to {last.seq} yet", code="record.source")
        return arrivals, up_to

    async def _look(self, messages: Sequence[Message]) -> list[Arrival]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._shared.threads, self.look, messages)

    def _drop_held(self) -> None:
        for arrival in self._held:
            self._shared.held_bytes -= arrival.size
            self._behind = max(self._behind, arrival.seq)
        self._held.clear()

    # folding

    def _take(self, arrival: Arrival) -> None:
        if arrival.seq <= self._position or self._is_void:
            return
        self._position = arrival.seq
        if isinstance(arrival.found, Exception):
            raise arrival.found
        if isinstance(arrival.found, Unfit):
            self._bury(arrival.seq, arrival.found.code, arrival.found.message, arrival.message.data)
            return
        self._checkpoints.trace(arrival.message.headers.get("traceparent", ""))
        self._hold(arrival)
        self._emit(self._fold.take(Piece.of(arrival.seq, arrival.found)))

    def _hold(self, arrival: Arrival) -> None:
        if isinstance(arrival.found, Fragment) and arrival.found.header.kind is Kind.DATA:
            self._shared.claims.hold(self.identity.uid, arrival.seq, arrival.found)

    def _emit(self, outputs: Sequence[Output]) -> None:
        claims, uid = self._shared.claims, self.identity.uid
        for output in outputs:
            match output:
                case Recorded():
                    claims.close(output, data_seqs(output))
                    self._checkpoints.append(output)
                case Ended():
                    claims.forget_open(uid)
                    told = (self.identity.session, output.fragments, self._fold.doubles, self.invalid)
                    log.info("recording_ended session=%s fragments=%d doubles=%d refused=%d", *told)
                    self._checkpoints.append(output)
                case Refused(piece, code, message):
                    claims.drop(uid, piece.stream_seq)
                    self._bury(piece.stream_seq, code, message, piece.proof)
                case Double(piece):
                    claims.drop(uid, piece.stream_seq)
                case Older(piece):
                    claims.drop(uid, piece.stream_seq)
                    self._shared.aside.do(partial(self._compare_older, self._fold, piece))

    async def _compare_older(self, fold: Fold, piece: Piece) -> None:
        """Find what was taken for this place in the recorded events; the rare path of late doubles."""
        taken = await find_fragment(self._shared.jet, self.identity.session, piece.header)
        if taken is not None:
            fold.compare(piece, *taken)
        else:  # inside a declared gap: it stays lost, for a chunk after it may be closed already
            self._bury(piece.stream_seq, "fragment.late", "its place was declared lost", piece.proof)

    def _bury(self, seq: int, code: str, message: str, body: Bytes) -> None:
        self.invalid += 1
        if self.invalid <= DEAD_LETTERS:
            self._shared.aside.bury(self.identity.session, seq, code, message, body)

    def _void(self) -> None:
        """Another owner recorded on: forget our fold, take up theirs."""
        self._is_void = True
        log.info("fold_void session=%s: another owner recorded on", self.identity.session)
        self.catch_up(self._position)


def _is_ending(arrival: Arrival) -> bool:
    return isinstance(arrival.found, Fragment) and arrival.found.header.kind in (Kind.FINAL, Kind.END)
