"""Owns the recording of one session in this process: its fold, its place in the stream, its checkpoints.

1. Nothing is acknowledged: the last `recorded` event is the checkpoint, and holds the whole fold.
2. Events are appended in order, each expecting the one before it, so that two owners cannot fork a session:
   who loses finds the winner's event equal and goes on from it, or takes up the winner's fold.
3. While the session is behind, new fragments are held (up to HELD_BYTES in all) or dropped; what was
   dropped is read again from the stream.
A crash anywhere loses only memory: the next owner restores the fold from the checkpoint and reads on.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from handlers.stages.admit import Unfit, admit
from handlers.stages.open_chunk import Piece
from handlers.stages.record import Double, Fold, Identity, Older, Output, Refused
from infra.jetstream import Jet
from schemas import subjects
from schemas.chunk_events import Dead, Ended, Recorded
from schemas.errors import Conflict, Retryable
from schemas.fragment import Fragment, Kind
from schemas.jetstream import Message
from schemas.upcast import read_recorded
from streams.chunk_log import data_seqs, find_fragment
from streams.claims import Claims

HELD_BYTES = 16 << 20
WALK_BYTES = 8 << 20
DEAD_LETTERS = 100
"""Refused fragments of a session that are kept in DEAD; the others are counted only."""
DELAY_FIRST_S, DELAY_MAX_S = 0.05, 5.0

log = logging.getLogger("lucid.record")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message of the recording, looked at."""

    seq: int
    found: Fragment | Unfit
    message: Message

    @property
    def size(self) -> int:
        return len(self.message.data)


@dataclass(slots=True)
class Held:
    """Bytes that all sessions together hold while they are behind."""

    size: int = 0


@dataclass(slots=True)
class Recording:
    """One session's fold in this process. Used from one event loop only."""

    jet: Jet
    claims: Claims
    threads: Executor
    identity: Identity
    host_key: bytes
    signers: Callable[[], Sequence[bytes]]
    held_in_all: Held
    fold: Fold = field(init=False)
    checkpoint: int = 0
    """Stream sequence of the session's last event on `recorded`."""
    position: int = 0
    """Stream sequence of the last fragment that was folded, or looked at and not needed."""
    behind: int = 0
    """Fragments up to here are read from the stream again."""
    _catching: asyncio.Task[None] | None = None
    _held: deque[Arrival] = field(default_factory=deque)
    _outbox: deque[Recorded | Ended] = field(default_factory=deque)
    _traces: deque[str] = field(default_factory=deque)
    _appending: asyncio.Task[None] | None = None
    _trace: str = ""

    def __post_init__(self) -> None:
        self.fold = Fold(self.identity)

    @property
    def subject(self) -> str:
        return subjects.recording(self.identity.host, self.identity.session)

    @property
    def done(self) -> bool:
        """The recording has ended, and its last event is appended."""
        return self.fold.ended and not self._outbox and self._appending is None

    def look(self, messages: Sequence[Message]) -> list[Arrival]:
        """Check messages of this session; runs in a thread."""
        signers = self.signers()
        return [Arrival(message.seq, self._admit(message, signers), message) for message in messages]

    def _admit(self, message: Message, signers: Sequence[bytes]) -> Fragment | Unfit:
        if message.subject != self.subject:
            return Unfit("fragment.host", "it came from a host that this session is not of")
        return admit(message.data, self.host_key, signers)

    async def take(self, arrival: Arrival) -> None:
        """Fold a message that was followed, or keep it until the session has caught up."""
        if self._catching is None:
            await self._fold(arrival)
            return
        size = arrival.size
        if self.held_in_all.size + size > HELD_BYTES:
            self._drop_held()
            self.behind = arrival.seq
            return
        self.held_in_all.size += size
        self._held.append(arrival)

    def catch_up(self, up_to: int = 0) -> None:
        """Restore the fold from its checkpoint and read the stream up to a sequence, in the background."""
        self.behind = max(self.behind, up_to)
        if self._catching is None:
            self._catching = asyncio.create_task(self._catch_up())

    async def close(self) -> None:
        """Stop working on this session; nothing that matters is only here."""
        for task in (self._catching, self._appending):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        self._drop_held()
        self.claims.forget_open(self.identity.uid)

    # catching up

    async def _catch_up(self) -> None:
        await _patiently(self._restore)
        while True:
            await _patiently(self._walk)
            while self._held:
                arrival = self._held.popleft()
                self.held_in_all.size -= arrival.size
                await self._fold(arrival)
            if self.behind <= self.position:
                # No await stands between the last look at `_held` and here: nothing can slip between.
                self._catching = None
                return

    async def _restore(self) -> None:
        self.claims.forget_open(self.identity.uid)
        log_subject = subjects.chunk(subjects.RECORDED, self.identity.session)
        message = await self.jet.last(subjects.CHUNKS, log_subject)
        if message is None:
            self.fold, self.checkpoint, self.position = Fold(self.identity), 0, 0
            return
        event = read_recorded(message.data)
        state = event.state
        self.checkpoint, self.position = message.seq, state.at
        found = await self.jet.get_many(subjects.RECORDINGS, state.named)
        arrivals = await self._look(list(found.values()))
        pieces = [Piece.of(a.seq, a.found) for a in arrivals if isinstance(a.found, Fragment)]
        self.fold = Fold.restore(self.identity, state, pieces)
        if isinstance(event, Ended):
            self.fold.ended = True
            return
        for arrival in arrivals:
            self._hold(arrival)
        await self._emit(self.fold.drain())

    async def _walk(self) -> None:
        """Read this session's own subject from where the fold is up to `behind`."""
        while self.position < self.behind:
            await self.claims.room()
            messages, more = await self.jet.batch(
                subjects.RECORDINGS, self.subject, self.position + 1, max_bytes=WALK_BYTES
            )
            wanted = [message for message in messages if message.seq <= self.behind]
            for arrival in await self._look(wanted):
                await self._fold(arrival)
            if len(wanted) < len(messages) or not more:
                self.position = max(self.position, self.behind)

    async def _look(self, messages: list[Message]) -> list[Arrival]:
        return await asyncio.get_running_loop().run_in_executor(self.threads, self.look, messages)

    def _drop_held(self) -> None:
        for arrival in self._held:
            self.held_in_all.size -= arrival.size
            self.behind = max(self.behind, arrival.seq)
        self._held.clear()

    # folding

    async def _fold(self, arrival: Arrival) -> None:
        if arrival.seq <= self.position:
            return
        self.position = arrival.seq
        if isinstance(arrival.found, Unfit):
            self.fold.at = arrival.seq
            self.fold.invalid += 1
            await self._bury(arrival.seq, arrival.found.code, arrival.found.message, arrival.message.data)
            return
        self._trace = self._trace or arrival.message.headers.get("traceparent", "")
        self._hold(arrival)
        await self._emit(self.fold.take(Piece.of(arrival.seq, arrival.found)))

    def _hold(self, arrival: Arrival) -> None:
        if isinstance(arrival.found, Fragment) and arrival.found.header.kind is Kind.DATA:
            self.claims.hold(self.identity.uid, arrival.seq, arrival.found)

    async def _emit(self, outputs: Sequence[Output]) -> None:
        fold = self.fold
        for output in outputs:
            if self.fold is not fold:
                return  # a fork was found while we waited: what the old fold made is void
            match output:
                case Recorded():
                    self.claims.close(output, data_seqs(output))
                    self._send(output)
                case Ended():
                    self._send(output)
                case Refused(piece, code, message):
                    self.claims.drop(self.identity.uid, piece.stream_seq)
                    await self._bury(piece.stream_seq, code, message, piece.proof)
                case Double(piece):
                    self.claims.drop(self.identity.uid, piece.stream_seq)
                case Older(piece):
                    self.claims.drop(self.identity.uid, piece.stream_seq)
                    await _patiently(partial(self._compare_older, piece))

    async def _compare_older(self, piece: Piece) -> None:
        """Find what was taken for this place in the recorded events; the rare path of late doubles."""
        taken = await find_fragment(self.jet, self.identity.session, piece.header)
        if taken is not None:
            self.fold.compare(piece, *taken)
        # None: the place is inside a declared gap. It stays lost: a chunk after it may be closed already.
        else:
            self.fold.invalid += 1
            await self._bury(piece.stream_seq, "fragment.late", "its place was declared lost", piece.proof)

    async def _bury(self, seq: int, code: str, message: str, body: bytes) -> None:
        """Put a refused fragment into DEAD. Lost when we crash here; then its next reader puts it there."""
        if self.fold.invalid > DEAD_LETTERS:
            return
        session = self.identity.session
        dead = Dead(stage="record", session=session, seq=seq, code=code, message=message, body=body)
        log.warning("fragment_refused session=%s seq=%d code=%s", session, seq, code)
        await _patiently(
            partial(
                self.jet.publish,
                subjects.dead("record", session),
                dead.model_dump_json().encode(),
                msg_id=f"dead.record.{seq}",
            )
        )

    # appending

    def _send(self, event: Recorded | Ended) -> None:
        self._outbox.append(event)
        self._traces.append(self._trace)
        self._trace = ""
        if self._appending is None:
            self._appending = asyncio.create_task(self._append_all())

    async def _append_all(self) -> None:
        while self._outbox:
            event, trace = self._outbox[0], self._traces[0]
            body = event.model_dump_json().encode()
            try:
                await _patiently(partial(self._append, event, body, trace))
            except Conflict:
                log.info("checkpoint_lost session=%s: another owner recorded on", self.identity.session)
                self._outbox.clear()
                self._traces.clear()
                self._appending = None
                self.catch_up(self.position)
                return
            self._outbox.popleft()
            self._traces.popleft()
        self._appending = None

    async def _append(self, event: Recorded | Ended, body: bytes, trace: str) -> None:
        subject = subjects.chunk(subjects.RECORDED, self.identity.session)
        headers = {"ce-type": event.type, "ce-specversion": "1.0"} | ({"traceparent": trace} if trace else {})
        try:
            self.checkpoint = await self.jet.append(subject, body, self.checkpoint, headers=headers)
        except Conflict:
            # Ours with a lost ack, an equal one of another owner, or a fork that we must take up.
            following, _ = await self.jet.batch(subjects.CHUNKS, subject, self.checkpoint + 1, max_messages=1)
            if not following or following[0].data != body:
                raise _Forked from None
            self.checkpoint = following[0].seq


class _Forked(Conflict):
    def __init__(self) -> None:
        super().__init__("another owner appended another event", code="record.forked")


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Repeat a call through outages for ever, with growing pauses."""
    delay_s = DELAY_FIRST_S
    while True:
        try:
            return await call()
        except _Forked:
            raise
        except Retryable as error:
            log.warning("record_waits error=%s", error)
            await asyncio.sleep(delay_s)
            delay_s = min(DELAY_MAX_S, delay_s * 2)
