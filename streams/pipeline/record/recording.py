"""Records one session in this process: its fold and its place in the stream.

1. Nothing is acknowledged: the last `recorded` event is the checkpoint, and holds the whole fold.
2. Folding is synchronous: between a fragment and what follows from it nothing can slip in.
3. While the session is behind, new fragments are held (HELD_BYTES for all sessions together) or dropped;
   what was dropped is read again from the stream. A session falls behind at a start, when its host has more
   chunks under way than its share, when it sends more than its part of one read, and when much of what it
   sends is refused: then it takes its time, and no other session's.
4. Another owner may have recorded on (`Checkpoints` says so): then our fold is void, and theirs is taken up.
5. A paused session folds nothing: its fragments stay in the stream. But what has ended cannot rest: the
   recording's ending is looked for, and taken with all that came before it.
6. An error that nobody foresaw stops this session for RETRY_S, is logged, and never reaches another one.
A crash anywhere loses only memory: the next owner restores the fold from the checkpoint and reads on.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from functools import partial

from handlers.stages.record.admit import Arrival, Unfit, admit_all
from handlers.stages.record.fold import Fold
from handlers.stages.record.pieces import (
    Duplicate,
    FoldedFragment,
    Identity,
    LateDuplicate,
    Output,
    Refused,
    is_taken,
)
from schemas import subjects
from schemas.events.chunk import Ended, Recorded
from schemas.format.fragment import Fragment, Kind
from schemas.ports.messages import Message
from streams.event_store.chunk_log import data_seqs
from streams.pipeline.record.checkpoints import Checkpoints, restore
from streams.pipeline.record.held_fragments import HeldFragments
from streams.pipeline.record.refusals import DEAD_LETTERS, Refusals
from streams.pipeline.record.shared import Shared
from streams.pipeline.record.subject_reader import SubjectReader
from streams.scheduling.retry import retry
from streams.scheduling.threads import is_slow

RETRY_S = 60.0
READ_SHARE, SUSPECT_SHARE = 256, 16
"""Messages of a session that are looked at of one read; fewer if many were refused before."""
TURN = 64
"""Fragments that are folded before the event loop has its turn."""

log = logging.getLogger("lucid.record")


class Recording:
    """One session's fold in this process. Used from one event loop only."""

    def __init__(self, shared: Shared, identity: Identity, host_key: bytes) -> None:
        self.identity = identity
        self.subject = subjects.recording(identity.host, identity.session)
        self._shared, self._host_key = shared, host_key
        self._fold = Fold(identity)
        self._refusals = Refusals(shared, identity.session)
        self._stream = SubjectReader(shared, identity, self.look)
        self._checkpoints = Checkpoints(shared.jet, identity.session, self._void)
        self._position = 0
        """Stream sequence of the last fragment that was folded, or looked at and not needed."""
        self._heard_us = 0
        """When the newest fragment was stored that was taken of the host, by the server's clock."""
        self._behind = 0
        """Fragments up to here are read from the stream again."""
        self._held = HeldFragments(shared)
        self._catching: asyncio.Task[None] | None = None
        self._is_void = self._paused = self._over = self._stalled = self._closed = False

    @property
    def full(self) -> bool:
        """Whether more of it waits to be appended, or is under way of its host, than may be."""
        return self._checkpoints.full or self._shared.chunk_memory.full(self.identity.host)

    @property
    def suspect(self) -> bool:
        """Whether so much of what it sent was refused that a flood of it is looked at aside, and slowly."""
        return self._refusals.count >= DEAD_LETTERS

    @property
    def told(self) -> tuple[int, int] | None:
        """Up to where the stream was looked at, and when the host was heard (µs; 0: unknown)."""
        return None if self._is_void or self._closed else (self._position, self._heard_us)

    def look(self, messages: Sequence[Message]) -> list[Arrival]:
        """Check messages of this session; runs in a thread."""
        return admit_all(messages, self._host_key, self._shared.end_keys)

    def take(self, arrival: Arrival) -> None:
        """Fold a message that was followed, or keep it until the session has caught up."""
        if self._closed:
            return
        if self._paused and arrival.is_ending(self.identity.uid):
            self._over = True
            self.pause(False)
        if self._catching is None and not self._paused:
            try:
                self._take(arrival)
            except Exception:
                log.exception("recording_failed session=%s", self.identity.session)
                self._is_void = True
                self.catch_up(arrival.seq)
        elif self._holds(arrival.size):
            self._held.add(arrival)
        else:
            self._behind = max(self._behind, arrival.seq)
            self._drop_held()

    def leave(self, up_to: int = 0) -> None:
        """Leave what was sent, up to a sequence, in the stream; go on in the background when it may."""
        if up_to > self._position:
            self._behind = max(self._behind, up_to)
            self._drop_held()
        if not self._paused:
            self._begin_catching(restored=True)

    def leaves(self, size: int, looked: int) -> bool:
        """Whether a message stays in the stream, not looked at. looked: at how many, of this read."""
        enough = looked >= (SUSPECT_SHARE if self.suspect else READ_SHARE)
        late = self._catching is not None and not self._holds(size)
        return not self._paused and (enough or late)  # paused: its ending must be seen

    def catch_up(self, up_to: int = 0) -> None:
        """Restore the fold from its checkpoint and read the stream up to a sequence, in the background."""
        self._behind = max(self._behind, up_to)
        self._begin_catching()

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
        await self._refusals.close()
        self._drop_held()
        self._shared.chunk_memory.forget_open(self.identity.uid)

    def _holds(self, size: int) -> bool:
        """Whether a message of so many bytes is kept until the session has caught up."""
        return not self._paused and not self._stalled and self._held.has_room(size)

    def _begin_catching(self, *, restored: bool = False) -> None:
        """restored: the fold is as it should be."""
        if self._catching is None and not self._closed:
            catching = self._catch_up(restored)
            self._catching = asyncio.create_task(catching, name=f"catch-up {self.identity.session}")

    async def _catch_up(self, restored: bool) -> None:
        try:
            while not self._closed:
                try:
                    if not restored or self._is_void:
                        await retry(self._restore)
                    restored = False
                    if await self._read_on() and not await retry(self._ended_in_pause):
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
            await self._room()
            await retry(self._walk)
            await self._take_held()
            if self._behind <= self._position and not self._held:
                break  # nothing awaits from here to the end of the task: nothing slips between
        self._drop_held()
        return not self._is_void

    async def _take_held(self) -> None:
        turn = 0
        while self._held and self._behind <= self._position and not self._is_void and not self.full:
            self._take(self._held.pop())
            turn += 1
            if turn % TURN == 0:
                await asyncio.sleep(0)

    async def _room(self) -> None:
        await self._checkpoints.room()
        await self._shared.chunk_memory.room(self.identity.host)

    async def _restore(self) -> None:
        """Take up the fold that the checkpoint holds; all of it at once, after the last await."""
        await self._checkpoints.close()
        self._is_void = False  # what voids the fold while it is read is about what was read, too
        async with self._shared.walks.turn(self.identity.host):
            restored = await restore(self._shared.jet, self.identity, self._stream.look)
        self._shared.chunk_memory.forget_open(self.identity.uid)
        self._fold, self._position = restored.fold, restored.fold.at
        self._checkpoints.restart(restored.event_seq)
        for arrival in restored.arrivals:
            self._hold(arrival)
            self._hear(arrival.message)
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
            arrivals, at = await self._stream.read_after(at, self._behind)
            if any(arrival.is_ending(self.identity.uid) for arrival in arrivals):
                self._over, self._paused = True, False
        return self._is_void or not self._paused

    async def _walk(self) -> None:
        """Read this session's own subject from where the fold is up to `_behind`."""
        while self._position < self._behind and not self._paused and not self._is_void:
            await self._room()
            began_s = time.monotonic()
            arrivals, at = await self._stream.read_after(self._position, self._behind)
            for number, arrival in enumerate(arrivals, 1):
                self._take(arrival)
                if number % TURN == 0:
                    await asyncio.sleep(0)
            self._position = max(self._position, at)
            if self.suspect:  # it rests as long as it was looked at
                await asyncio.sleep(time.monotonic() - began_s)

    def _drop_held(self) -> None:
        self._behind = max(self._behind, self._held.drop())

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
        self._checkpoints.trace(arrival.message.headers.get("traceparent", ""))
        self._hold(arrival)
        outputs = self._fold.take(FoldedFragment.of(arrival.seq, arrival.found))
        if arrival.found.header.kind is not Kind.END and is_taken(outputs, arrival.seq):
            self._hear(arrival.message)
        self._emit(outputs)

    def _hear(self, message: Message) -> None:
        self._heard_us = max(self._heard_us, message.stream_time_ns // 1000)

    def _hold(self, arrival: Arrival) -> None:
        if isinstance(arrival.found, Fragment) and arrival.found.header.kind is Kind.DATA:
            self._shared.chunk_memory.hold(self.identity.uid, arrival.seq, arrival.found)

    def _emit(self, outputs: Sequence[Output]) -> None:
        chunk_memory, uid = self._shared.chunk_memory, self.identity.uid
        for output in outputs:
            match output:
                case Recorded():
                    chunk_memory.close(output, data_seqs(output), slow=is_slow(self.identity.settings))
                    self._checkpoints.append(output)
                case Ended():
                    chunk_memory.forget_open(uid)
                    counts = output.fragments, self._fold.duplicates, self._refusals.count
                    told = (self.identity.session, *counts)
                    log.info("recording_ended session=%s fragments=%d doubles=%d refused=%d", *told)
                    self._checkpoints.append(output)
                case Refused(piece, code, message):
                    chunk_memory.drop(uid, piece.stream_seq)
                    self._refusals.dead_letter(piece.stream_seq, code, message, piece.proof)
                case Duplicate(piece):
                    chunk_memory.drop(uid, piece.stream_seq)
                case LateDuplicate(piece):
                    chunk_memory.drop(uid, piece.stream_seq)
                    self._shared.side_tasks.add(partial(self._refusals.compare_older, self._fold, piece))
        self._refusals.watch(self._fold)

    def _void(self) -> None:
        """Another owner recorded on: forget our fold, take up theirs."""
        self._is_void = True
        log.info("fold_void session=%s: another owner recorded on", self.identity.session)
        self.catch_up(self._position)
