"""Owns the `recorded` events of one session on their way into the log: in order, each after the one before.

1. Two owners cannot fork a session: the loser finds the winner's event equal and goes on, or is told that its
   fold is void, and nothing that it made afterwards is appended.
2. Outages are waited out; what waits is bounded by `room`.
"""

import asyncio
import logging
import re
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from handlers.stages.record.admit import Arrival
from handlers.stages.record.fold import Fold
from handlers.stages.record.pieces import Identity
from schemas import subjects
from schemas.errors import Conflict, Unavailable
from schemas.events.chunk import Ended, Recorded
from schemas.events.headers import headers
from schemas.ports import Jet, Reader
from schemas.ports.messages import Message
from streams.event_store.chunk_log import last_recorded, recorded_in
from streams.scheduling.retry import OUTAGE, retry

WAITING = 64
"""Events that may wait before the reader does."""
TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

log = logging.getLogger("lucid.record")


class Checkpoints:
    """One session's appends. `void` is called when another owner's event stands where ours should."""

    def __init__(self, jet: Jet, session: str, void: Callable[[], None]) -> None:
        self._jet, self._void = jet, void
        self._subject = subjects.chunk(subjects.RECORDED, session)
        self._last = 0
        """Stream sequence of the session's last event."""
        self._queue: deque[tuple[Recorded | Ended, str]] = deque()
        self._trace = ""
        self._task: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._room.set()

    @property
    def full(self) -> bool:
        return not self._room.is_set()

    async def room(self) -> None:
        await self._room.wait()

    def trace(self, traceparent: str) -> None:
        """The trace of the next event, unless an earlier fragment has set it. Hosts may send anything."""
        if not self._trace and TRACEPARENT.fullmatch(traceparent):
            self._trace = traceparent

    def append(self, event: Recorded | Ended) -> None:
        """Append soon, after those that wait."""
        self._queue.append((event, self._trace))
        self._trace = ""
        if len(self._queue) >= WAITING:
            self._room.clear()
        if self._task is None:
            self._task = asyncio.create_task(self._append_all(), name=f"append {self._subject}")

    def restart(self, last: int) -> None:
        """The session's last event is at this stream sequence. Only after `close`."""
        self._last = last

    async def close(self) -> None:
        """Drop what waits: whoever restores the fold makes it again."""
        task, self._task = self._task, None
        self._forget()
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _append_all(self) -> None:
        """Until nothing waits. Whatever else goes wrong voids the fold: it is made again from the log."""
        try:
            while self._queue:
                event, trace = self._queue[0]
                await retry(partial(self._append, event, trace))
                self._queue.popleft()
                if len(self._queue) < WAITING:
                    self._room.set()
            self._task = None
        except Exception as error:
            if not isinstance(error, _ForkedError):
                log.exception("append_failed subject=%s", self._subject)
                await asyncio.sleep(OUTAGE.backoff.most_s)
            self._task = None
            self._forget()
            self._void()

    async def _append(self, event: Recorded | Ended, trace: str) -> None:
        body = event.model_dump_json().encode()
        try:
            self._last = await self._jet.append(
                self._subject, body, self._last, headers=headers(event.type, trace)
            )
        except Conflict:
            # Ours with a lost ack, an equal one of another owner, or a fork.
            after = self._last + 1
            following, _ = await self._jet.batch(subjects.CHUNKS, self._subject, after, max_messages=1)
            if following and recorded_in(following[0]) is None:
                self._last = following[0].seq  # nonsense that somebody wrote: ours goes after it
                raise
            if not following or following[0].data != body:
                raise _ForkedError from None
            self._last = following[0].seq

    def _forget(self) -> None:
        self._queue.clear()
        self._trace = ""
        self._room.set()


class _ForkedError(Exception):
    """Another owner appended another event."""


Look = Callable[[Sequence[Message]], Awaitable[list[Arrival]]]
"""`handlers.stages.record.admit.admit_all` with the session's keys, in a thread."""


@dataclass(frozen=True, slots=True)
class Restored:
    """A fold, and what it was restored from. Call `fold.drain()` next."""

    fold: Fold
    event_seq: int = 0
    """Stream sequence of the session's last event; 0: there is none."""
    arrivals: Sequence[Arrival] = ()
    """The fragments that the event names: they are in no closed chunk."""


async def restore(jet: Reader, who: Identity, look: Look) -> Restored:
    """Return record's fold as its last event left it.

    Raises Unavailable (record.stream): a fragment that the event names cannot be read.
    """
    found = await last_recorded(jet, who.session)
    if found is None:
        return Restored(Fold(who))
    seq, event = found
    named = [] if isinstance(event, Ended) else event.state.named
    found_again = await jet.get_many(subjects.RECORDINGS, named)
    # What was taken stays taken: its headers were looked at then, and may read otherwise now.
    arrivals = await look([replace(message, headers={}) for message in found_again.values()])
    pieces = [arrival.folded for arrival in arrivals if arrival.folded is not None]
    if len(pieces) < len(named):
        raise Unavailable(
            f"{len(named) - len(pieces)} fragments of the checkpoint of {who.session} cannot be read",
            code="record.stream",
        )
    fold = Fold.restore(who, event.state, pieces)
    fold.ended = isinstance(event, Ended)
    return Restored(fold, seq, arrivals)
