"""Appends the `recorded` events of one session in order, and restores a fold from the last one.

1. Two owners cannot fork a session. If the loser's event equals the winner's, it goes on. Otherwise its fold
   is void, and none of its later events is appended.
2. Outages are waited out. `wait_for_space` bounds the events that wait.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from handlers.stages.record.admit import Arrival
from handlers.stages.record.fold import Fold
from handlers.stages.record.pieces import Identity
from schemas import subjects
from schemas.config.logs import logger
from schemas.errors import Conflict, LucidError, Unavailable
from schemas.events.chunk import Ended, Recorded
from schemas.events.headers import headers
from schemas.ports import Jet
from schemas.ports.messages import Message
from streams.event_store.chunk_log import last_recorded, recorded_in
from streams.event_store.recordings import Recordings
from streams.scheduling.retry import OUTAGE, retry

WAITING = 64
"""Events that may wait before the reader waits, too."""

log = logger("lucid.record")


class Checkpoints:
    """The appends of one session. `void` is called when another owner's event is at the place of ours."""

    def __init__(self, jet: Jet, session: str, void: Callable[[], None]) -> None:
        self._jet, self._void = jet, void
        self._subject = subjects.chunk(subjects.RECORDED, session)
        self._last = 0
        """Stream sequence of the session's last event."""
        self._queue: deque[tuple[Recorded | Ended, str]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._has_space = asyncio.Event()
        self._has_space.set()

    @property
    def full(self) -> bool:
        return not self._has_space.is_set()

    async def wait_for_space(self) -> None:
        await self._has_space.wait()

    def append(self, event: Recorded | Ended, traceparent: str = "") -> None:
        """Append soon, after the waiting events. traceparent: of the event's header; empty: it has none."""
        self._queue.append((event, traceparent))
        if len(self._queue) >= WAITING:
            self._has_space.clear()
        if self._task is None:
            self._task = asyncio.create_task(self._append_all(), name=f"append {self._subject}")

    def restart(self, last: int) -> None:
        """Go on after the event at this stream sequence. Only after `close`."""
        self._last = last

    async def close(self) -> None:
        """Drop the waiting events: a restored fold makes them again."""
        task, self._task = self._task, None
        self._forget()
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _append_all(self) -> None:
        """Append until no event waits. Any error but an outage voids the fold, which is then restored."""
        try:
            while self._queue:
                event, trace = self._queue[0]
                await retry(partial(self._append, event, trace))
                self._queue.popleft()
                if len(self._queue) < WAITING:
                    self._has_space.set()
            self._task = None
        except Exception as error:
            if not isinstance(error, _ForkedError):
                log.exception("append_failed", subject=self._subject)
                await asyncio.sleep(OUTAGE.backoff.most_s)
            self._task = None
            self._forget()
            self._void()

    async def _append(self, event: Recorded | Ended, trace: str) -> None:
        body = event.model_dump_json().encode()
        await self._jet.tracer.kept()  # the span of the chunk: after a crash nobody closes the chunk again
        try:
            self._last = await self._jet.append(
                self._subject, body, self._last, headers=headers(event.type, trace)
            )
        except Conflict:
            # Our event with a lost ack, an equal event of another owner, or a fork.
            after = self._last + 1
            following, _ = await self._jet.batch(subjects.CHUNKS, self._subject, after, max_messages=1)
            if following and recorded_in(following[0]) is None:
                self._last = following[0].seq  # a foreign message: our event goes after it
                raise
            if not following or following[0].data != body:
                raise _ForkedError from None
            self._last = following[0].seq

    def _forget(self) -> None:
        self._queue.clear()
        self._has_space.set()


class _ForkedError(Exception):
    """Another owner appended another event."""


Look = Callable[[Sequence[Message]], Awaitable[list[Arrival]]]
"""`handlers.stages.record.admit.admit_all` with the session's keys, in a thread."""


@dataclass(frozen=True, slots=True)
class Restored:
    """A restored fold and its sources. Call `fold.settle_waiting()` next."""

    fold: Fold
    event_seq: int = 0
    """Stream sequence of the session's last event; 0: there is none."""
    arrivals: Sequence[Arrival] = ()
    """The fragments that the event names: those in no closed chunk."""
    traceparents: Mapping[int, str] = field(default_factory=dict)
    """Of the fragments, by stream sequence."""


async def restore(recordings: Recordings, identity: Identity, look: Look) -> Restored:
    """Restore a recording's fold from its last event: the one way back, for every caller.

    Raises Unavailable: a fragment that the event names cannot be read (record.stream); the server denies the
    event (record.forgotten), which does not pass by itself.
    """
    found = await last_recorded(recordings.jet, identity.session)
    if found is None:
        return Restored(Fold(identity))
    event = found.event
    named = [] if isinstance(event, Ended) else event.state.named
    found_again = await recordings.get_many(identity.session, named)
    # A taken fragment stays taken: its headers were checked then, and are not checked again.
    arrivals = await look([replace(message, headers={}) for message in found_again.values()])
    fragments = [arrival.folded for arrival in arrivals if arrival.folded is not None]
    if len(fragments) < len(named):
        raise Unavailable(
            f"{len(named) - len(fragments)} fragments of the checkpoint of {identity.session} cannot be read",
            code="record.stream",
        )
    fold = Fold.restore(identity, event.state, fragments)
    fold.ended = isinstance(event, Ended)
    traceparents = {seq: message.headers.get("traceparent", "") for seq, message in found_again.items()}
    return Restored(fold, found.seq, arrivals, traceparents)


def passes(error: LucidError) -> bool:
    """Whether an outage ends by itself: `restore` is then tried again at once."""
    return error.code != "record.forgotten"


def log_failure(session: str, error: Exception, again_s: float, before: str) -> str:
    """Log the error that stops a session. Returns its text; one that was logged before is not repeated."""
    text = str(error)
    if not isinstance(error, LucidError):
        log.error("recording_failed", session=session, again_s=again_s, exc_info=error)
    elif text != before:
        log.error("recording_stopped", session=session, error=error, hint=error.hint, again_s=again_s)
    return text
