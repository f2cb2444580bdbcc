"""Owns what record does beside its way: dead letters, and the look-up of late doubles.

1. Nothing here may hold up a recording: what does not fit into the queue is let go, and the log says so.
2. What is lost when we crash here is a note about a refused fragment, never a fragment.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from schemas import subjects
from schemas.buffers import Bytes
from schemas.errors import LucidError
from schemas.events.chunk import Dead
from schemas.ports import Writer

PLACES = 256
BODY_BYTES = 64 * 1024
"""What is kept of a refused fragment: base64 of a whole one would not fit into a message."""

log = logging.getLogger("lucid.record")


class SideTasks:
    """A bounded queue of small errands, one after the other; after each it rests as long as that took."""

    def __init__(self, jet: Writer) -> None:
        self._jet = jet
        self._errands: asyncio.Queue[Callable[[], Awaitable[object]]] = asyncio.Queue(PLACES)
        self._let_go = 0

    async def run(self) -> None:
        """Do errands until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            errand = await self._errands.get()
            began_s = clock()
            try:
                await errand()
            except LucidError as error:
                log.warning("errand_failed error=%s", error)
            except Exception:
                log.exception("errand_failed")
            await asyncio.sleep(clock() - began_s)

    def do(self, errand: Callable[[], Awaitable[object]]) -> None:
        """Do it soon, unless too much waits already."""
        try:
            self._errands.put_nowait(errand)
        except asyncio.QueueFull:
            self._let_go += 1
            if self._let_go.bit_count() == 1:  # 1, 2, 4, 8 ...: told, and fills no disk
                log.warning("errands_let_go count=%d", self._let_go)

    def bury(self, session: str, seq: int, code: str, message: str, body: Bytes) -> None:
        """Put a refused fragment into DEAD. seq: its stream sequence."""
        log.warning("fragment_refused session=%s seq=%d code=%s", session, seq, code)
        kept = bytes(body[:BODY_BYTES])
        dead = Dead(stage="record", session=session, seq=seq, code=code, message=message, body=kept)
        data = dead.model_dump_json().encode()
        subject = subjects.dead("record", session)
        self.do(lambda: self._jet.publish(subject, data, msg_id=f"dead.record.{seq}"))
