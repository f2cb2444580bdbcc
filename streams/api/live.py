"""Streams the live state of one session as server-sent events: its log, and the steps of its chunks.

1. An event's id names the positions in both streams. A client that reconnects sends it as Last-Event-ID, and
   misses nothing.
2. A slow client slows its own stream: at most WAITING_MOST events wait in memory.
3. The stream ends when the session is stopped and sealed, or shredded. It also ends with the caller's token,
   and after LONGEST_S: the client reconnects with a token that is valid then.
4. A caller has ONE_CALLER streams at most: no caller takes the places of all others.
"""

import asyncio
import json
import math
import re
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from schemas import subjects
from schemas.errors import Busy, Misuse, Rejected
from schemas.events.session import Shredded, State, Transition
from schemas.ports import Jet
from schemas.ports.messages import Message
from streams.api.shapes import time_of
from streams.event_store.session_log import read_event
from streams.scheduling.fair_slots import FairSlots

WAITING_MOST = 256
CLIENTS_MOST = 200
"""Streams of one process: each holds two readers of the server."""
ONE_CALLER = 10
LONGEST_S = 3600.0
ALIVE_S = 15.0
"""A comment goes out after so long without an event, so that proxies keep the connection."""
LAST_ID = re.compile(r"(\d{1,15})-(\d{1,15})")
MEDIA_TYPE = "text/event-stream"


class LiveEvents:
    """The live streams of one process."""

    def __init__(self, jet: Jet) -> None:
        self._jet = jet
        self._places = FairSlots(CLIENTS_MOST, ONE_CALLER)

    @contextmanager
    def place(self, caller: str) -> Iterator[None]:
        """Hold a place for one stream of this caller. Raises Busy (live.limit)."""
        if not self._places.take_now(caller):
            raise Busy(
                f"{CLIENTS_MOST} live streams may be open here, {ONE_CALLER} of one caller",
                code="live.limit",
                hint="close one",
            )
        try:
            yield
        finally:
            self._places.give(caller)

    def follow(
        self, session_id: str, last_id: str | None, until_s: float = math.inf, *, only_present: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """The events of a session after `last_id`, within a `place`. Raises Misuse (live.last_id).

        until_s: the end of the caller's token, in seconds since 1970. only_present: no event of later.
        """
        match = LAST_ID.fullmatch(last_id) if last_id else None
        if last_id and match is None:
            raise Misuse("this Last-Event-ID is none of ours", code="live.last_id", hint="leave it out")
        after = (int(match[1]), int(match[2])) if match else (0, 0)
        return self._events(session_id, after, until_s, only_present)

    async def _events(
        self, session_id: str, after: tuple[int, int], until_s: float, only_present: bool
    ) -> AsyncGenerator[bytes, None]:
        clock, (in_log, in_chunks) = asyncio.get_running_loop().time, after
        end_s = clock() + LONGEST_S
        waiting: asyncio.Queue[tuple[str, Message]] = asyncio.Queue(WAITING_MOST)

        async def read(stream: str, subject: str, after: int) -> None:
            follower = self._jet.follow(stream, [subject], after + 1)
            try:
                async for item in follower:
                    if isinstance(item, Message):
                        await waiting.put((stream, item))
            finally:
                await follower.close()

        log, steps = subjects.lifecycle(session_id), subjects.chunk("*", session_id)
        readers = [
            asyncio.create_task(read(subjects.LIFECYCLE, log, in_log)),
            asyncio.create_task(read(subjects.CHUNKS, steps, in_chunks)),
        ]
        ends: tuple[int, int] | None = None  # positions of the last events, once they are known
        try:
            if only_present:
                ends = await self._newest(subjects.LIFECYCLE, log), await self._newest(subjects.CHUNKS, steps)
            while ends is None or in_log < ends[0] or in_chunks < ends[1]:
                # the token ends by the clock of the wall, which may be set meanwhile
                left_s = min(end_s - clock(), until_s - time.time())
                if left_s <= 0:
                    return
                try:
                    async with asyncio.timeout(min(ALIVE_S, left_s)):
                        stream, message = await waiting.get()
                except TimeoutError:
                    if left_s < ALIVE_S:
                        return
                    for reader in readers:
                        if reader.done():
                            reader.result()
                    yield b": alive\n\n"
                    continue
                told: dict[str, Any] | None
                if stream == subjects.LIFECYCLE:
                    in_log, (told, is_last) = message.seq, _logged(message)
                else:
                    in_chunks, told, is_last = message.seq, _step(message), False
                if told is not None:
                    yield _event(f"{in_log}-{in_chunks}", told)
                if is_last and ends is None:
                    ends = in_log, await self._newest(subjects.CHUNKS, steps)
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)

    async def _newest(self, stream: str, subject: str) -> int:
        """Position of the newest message; 0: there is none."""
        newest = await self._jet.last(stream, subject)
        return newest.seq if newest else 0


def _logged(message: Message) -> tuple[dict[str, Any] | None, bool]:
    """An event of the session's log as it is told, and whether it is the last one."""
    event = None
    with suppress(Rejected):  # one unreadable line does not end the stream
        event = read_event(message.data)
    if event is None:
        return None, False
    told: dict[str, Any] = {"event": event.type, "at": time_of(event.at_us).isoformat()}
    if isinstance(event, Transition):
        told |= {"from": event.from_state, "state": event.to_state, "reason": event.reason}
    stopped = isinstance(event, Transition) and event.to_state == State.STOPPED
    return told, stopped or isinstance(event, Shredded)


def _step(message: Message) -> dict[str, Any] | None:
    """A step of a chunk as it is told; None: the message is none of ours, and does not end the stream."""
    try:
        body = json.loads(bytes(message.data))
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, dict):
        return None
    if "index" not in body:
        chunks = body.get("chunks")
        return {"event": "Ended", "chunks": chunks if type(chunks) is int else None}
    if type(body["index"]) is not int:
        return None
    return {"event": "Chunk", "step": subjects.step_of(message.subject), "index": body["index"]}


def _event(event_id: str, told: dict[str, Any]) -> bytes:
    return f"id: {event_id}\nevent: {told['event']}\ndata: {json.dumps(told)}\n\n".encode()
