"""Keeps the list of all sessions, finished ones included, as a read model; answers it page by page.

1. The list is made from LIFECYCLE alone, from the position stored with it. It follows the log beside the
   directory and after it: building the list again delays neither a start nor a command.
2. A page names the number of its last session; the next page begins below it. Sessions created meanwhile have
   higher numbers, so pages are complete and disjoint.
3. The answer says how many events of the log the list does not contain yet.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from handlers.lifecycle.session import Session
from handlers.lifecycle.view import summary
from schemas import subjects
from schemas.config.logs import logger
from schemas.errors import LucidError
from schemas.ports import Jet, Reader
from schemas.ports.read_models import SessionQuery, SessionRow, Views
from streams.event_store.open_sessions import OpenSessions
from streams.event_store.session_directory import SessionDirectory
from streams.scheduling.retry import retry

PAGE_MOST = 500
"""Sessions in one answer: about 700 bytes each, and a message holds 1 MiB."""
WAITING_MOST = 2000
"""Rows that may wait to be written before the log is followed further."""
NEAR_EVENTS, NEAR_S = 2000, 2.0
"""A page waits up to NEAR_S for a list that lacks at most NEAR_EVENTS events."""
RETRY_S = 10.0
EMPTY_S = 0.2
PAUSE_MOST_S = 0.01

log = logger("lucid.list")


class PageAsked(BaseModel):
    """The body of the command `list`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    state: str = ""
    host: str = ""
    text: str = ""
    after: int = Field(default=0, ge=0)
    limit: int = Field(default=100, ge=1, le=PAGE_MOST)


class SessionList:
    """One for each process that answers commands. `run` fills it."""

    def __init__(self, jet: Jet, views: Views, ready: Callable[[], Awaitable[None]]) -> None:
        """ready: returns when the process can answer commands."""
        self._jet, self._views, self._ready = jet, views, ready
        self._changed: dict[str, Session] = {}
        self._moved, self._written = asyncio.Event(), asyncio.Condition()
        self._position = 0
        """Stream sequence of the last event that the rows contain."""
        self._slice_began_s = 0.0

    async def run(self) -> None:
        """Follow the log until cancelled. A failure stops the list for RETRY_S, and no other service."""
        await retry(self._ready)
        while True:
            try:
                await self._follow()
            except LucidError as error:
                log.warning("list_stopped", error=error, again_s=RETRY_S)
            except Exception:
                log.exception("list_failed", again_s=RETRY_S)
            await asyncio.sleep(RETRY_S)

    async def page(self, body: dict[str, Any]) -> dict[str, Any]:
        """One page, newest first. `next` in the answer is the `after` of the next page; 0: there is none."""
        asked = PageAsked.model_validate(body)
        last = await self._jet.last(subjects.LIFECYCLE, subjects.ALL_LIFECYCLE)
        newest = last.seq if last else 0
        if 0 < newest - self._position <= NEAR_EVENTS:
            await self._wait(newest)
        query = SessionQuery(asked.state, asked.host, asked.text, asked.after, asked.limit + 1)
        behind = max(newest - self._position, 0)
        found = await asyncio.to_thread(self._views.sessions, query)
        page, more = found[: asked.limit], found[asked.limit :]
        return {
            "sessions": [shown for _, shown in page],
            "next": page[-1][0] if more else 0,
            "behind": behind,
        }

    async def _wait(self, seq: int) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(NEAR_S), self._written:
                await self._written.wait_for(lambda: self._position >= seq)

    async def _follow(self) -> None:
        position = self._position = await self._begin()
        self._changed.clear()

        async def start(_: Reader) -> OpenSessions:
            return OpenSessions(position)

        directory = SessionDirectory(self._jet, start, self._pause)
        directory.on_change(lambda session: self._changed.update({session.id: session}))
        following = asyncio.create_task(directory.run(), name="list")
        following.add_done_callback(lambda _: self._moved.set())
        try:
            while not following.done():
                await self._moved.wait()
                self._moved.clear()
                changed, self._changed, position = self._changed, {}, directory.position
                if position > self._position:
                    await asyncio.to_thread(self._write, list(changed.values()), position)
                self._position = max(position, self._position)
                async with self._written:
                    self._written.notify_all()
            following.result()
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def _begin(self) -> int:
        """The position of the rows in this log. A log is identified by the time of its first event."""
        while not (info := await retry(lambda: self._jet.info(subjects.LIFECYCLE))).messages:
            await asyncio.to_thread(self._views.begin, "")
            await asyncio.sleep(EMPTY_S)
        first = await retry(lambda: self._jet.get(subjects.LIFECYCLE, info.first_seq))
        log_id = f"{first.stream_time_ns}" if first else ""
        position = await asyncio.to_thread(self._views.begin, log_id)
        if position > info.last_seq:  # the log was restored to an older state
            await asyncio.to_thread(self._views.begin, "")
            position = await asyncio.to_thread(self._views.begin, log_id)
        return position

    async def _pause(self) -> None:
        """Leave half of the time to other tasks, and bound the waiting rows by WAITING_MOST."""
        loop = asyncio.get_running_loop()
        self._moved.set()
        await asyncio.sleep(min(loop.time() - self._slice_began_s, PAUSE_MOST_S))
        if len(self._changed) > WAITING_MOST:
            async with self._written:
                await self._written.wait_for(lambda: len(self._changed) <= WAITING_MOST)
        self._slice_began_s = loop.time()

    def _write(self, changed: list[Session], position: int) -> None:
        """Write rows; runs in a thread."""
        rows = [
            SessionRow(one.first_seq, one.last_seq, one.id, one.state, one.created.host, summary(one))
            for one in changed
            if one.created is not None
        ]
        self._views.apply(rows, position)
