"""Counts the refused fragments of a session, writes the first ones to DEAD, ends a recording after its final.

1. A host that has sent its final sends no more fragments. If that final breaks a rule, its session would stay
   open for days. So the recording is aborted with the reason, and all earlier fragments are sealed.
2. The abort is the usual one, appended to the session's log: an `end` follows in the stream, after all
   fragments. Every fold ends at that fragment.
3. The fold's checkpoint records that a final was refused: after a crash the abort is asked again, harmlessly.
"""

import asyncio
import secrets
from contextlib import suppress

from handlers.stages.record.admit import Unfit
from handlers.stages.record.fold import Fold
from handlers.stages.record.pieces import FoldedFragment, Identity
from schemas.buffers import Bytes
from schemas.config.logs import logger
from schemas.errors import LucidError
from schemas.events.commands import RequestEnd
from schemas.format.fragment import Kind
from schemas.ports.messages import Message
from schemas.telemetry.trace_context import TraceContext
from streams.event_store.chunk_log import find_fragment
from streams.event_store.session_log import SessionLog
from streams.pipeline.record.chunk_traces import host_traces
from streams.pipeline.record.shared import Shared
from streams.scheduling.clock import now_us
from streams.scheduling.retry import ABORT, retry

STAGE = "record"
"""The stage's name in the log: it aborts by itself, for nobody."""
DEAD_LETTERS = 100
"""Refused fragments of a session that go to DEAD; the others are only counted."""

log = logger("lucid.record")


class Refusals:
    """The refusals of one session in this process."""

    def __init__(self, shared: Shared, identity: Identity) -> None:
        self.count = 0
        self._shared, self._session, self._uid = shared, identity.session, identity.uid
        self._ending: asyncio.Task[None] | None = None

    def dead_letter(
        self, fold: Fold, seq: int, code: str, message: str, body: Bytes, traceparent: str
    ) -> None:
        """Count a refused fragment. seq, traceparent: of its message, which anyone may have sent."""
        self.count += 1
        self._shared.measurements.refused()
        if self.count <= DEAD_LETTERS:
            above = self._own(fold, traceparent)
            self._shared.dead_letter(self._session, seq, code, message, body, above)

    def _own(self, fold: Fold, traceparent: str) -> str:
        """A traceparent of this session; empty: it is another's, or none. Its letter has no trace then."""
        context = TraceContext.parse(traceparent)
        known = context and context.trace_id in host_traces(self._uid, fold.next_index)
        return traceparent if known else ""

    def refuse(self, fold: Fold, message: Message, unfit: Unfit, *, is_ending: bool) -> None:
        """Count a message that no fold can take. is_ending: its host signed it as the session's final."""
        above = message.headers.get("traceparent", "")
        self.dead_letter(fold, message.seq, unfit.code, unfit.message, message.data, above)
        if is_ending:
            fold.refuse_final(Kind.FINAL, unfit.code)
            self.watch(fold)

    def watch(self, fold: Fold) -> None:
        """Abort if the fold has refused its final and goes on: in the background, until the log holds it."""
        if self._ending is None and fold.refused_final and not fold.ended:
            self._ending = asyncio.create_task(self._end(fold.refused_final), name=f"end {self._session}")

    async def compare_late(self, fold: Fold, fragment: FoldedFragment, traceparent: str) -> None:
        """Compare a late duplicate with the fragment that was taken at its place; a rare path."""
        taken = await find_fragment(self._shared.jet, self._session, fragment.header)
        if taken is not None:
            fold.compare(fragment, *taken)
        else:  # inside a declared gap: it stays lost, because a later chunk may be closed already
            why = "its place was declared lost"
            self.dead_letter(fold, fragment.stream_seq, "fragment.late", why, fragment.proof, traceparent)

    async def close(self) -> None:
        """Give up an abort that the log does not hold yet: the next owner of the session asks again."""
        if self._ending is not None:
            self._ending.cancel()
            await asyncio.gather(self._ending, return_exceptions=True)

    async def _end(self, reason: str) -> None:
        log.warning("final_refused", session=self._session, code=reason)
        end = RequestEnd(
            session=self._session,
            at_us=now_us(),
            who=STAGE,
            cause=f"refused-{secrets.token_hex(12)}",
            end="aborted",
            reason=reason,
        )
        with suppress(LucidError):  # refused: the recording has ended already
            await retry(lambda: SessionLog(self._shared.jet).execute(end), ABORT)
