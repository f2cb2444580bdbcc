"""Follows LIFECYCLE and hands out the sessions that changed, in batches.

1. A batch holds each session once, as it is after the batch's last event. So many events of one session cost
   one document.
2. The log is followed while a batch is written. At most WAITING_MOST sessions wait for the next batch.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import NamedTuple

from handlers.lifecycle.session import Session
from schemas import subjects
from schemas.ports import Jet, Reader
from streams.event_store.open_sessions import OpenSessions
from streams.event_store.session_directory import SessionDirectory
from streams.scheduling.retry import retry

WAITING_MOST = 2000
"""Sessions that may wait to be written before the log is followed further."""
PAUSE_MOST_S = 0.01


class Batch(NamedTuple):
    """The sessions that changed. position: stream sequence of the last event in it. events: how many."""

    sessions: list[Session]
    position: int
    events: int


class Changes:
    """The changes of all sessions from a position on. For one reader."""

    def __init__(self, jet: Jet, position: int, idle_s: float, *, shares: bool = True) -> None:
        """idle_s: a quiet log gives an empty batch so often. shares: leave half of the time to others."""
        self._jet, self._position, self._idle_s, self._shares = jet, position, idle_s, shares
        self._changed: dict[str, Session] = {}
        self._events = 0
        self._moved, self._taken = asyncio.Event(), asyncio.Event()
        self._slice_began_s = 0.0

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """Yield batches until cancelled; the caller closes the iterator (contextlib.aclosing)."""
        position = self._position

        async def start(_: Reader) -> OpenSessions:
            return OpenSessions(position)

        directory = SessionDirectory(self._jet, start, self._pause)
        directory.on_change(self._note)
        following = asyncio.create_task(directory.run(), name="changes")
        following.add_done_callback(lambda _: self._moved.set())
        try:
            while not following.done():
                try:
                    async with asyncio.timeout(self._idle_s):
                        await self._moved.wait()
                except TimeoutError:
                    pass
                self._moved.clear()
                changed, self._changed = self._changed, {}
                events, self._events = self._events, 0
                self._taken.set()
                position = max(position, directory.position)
                yield Batch(list(changed.values()), position, events)
            following.result()
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    def _note(self, session: Session) -> None:
        self._changed[session.id] = session
        self._events += 1

    async def _pause(self) -> None:
        """Leave half of the time to other tasks, and bound the waiting sessions by WAITING_MOST."""
        loop = asyncio.get_running_loop()
        self._moved.set()
        elapsed_s = loop.time() - self._slice_began_s if self._shares else 0.0
        await asyncio.sleep(min(elapsed_s, PAUSE_MOST_S))
        while len(self._changed) > WAITING_MOST:
            self._taken.clear()
            await self._taken.wait()
        self._slice_began_s = loop.time()


async def log_id(jet: Jet) -> tuple[str, int]:
    """The name of this log, and its last stream sequence. A log is named by the time of its first event.

    Empty: there is no event yet.
    """
    info = await retry(lambda: jet.info(subjects.LIFECYCLE))
    if not info.messages:
        return "", info.last_seq
    first = await retry(lambda: jet.get(subjects.LIFECYCLE, info.first_seq))
    return (f"{first.stream_time_ns}" if first else ""), info.last_seq
