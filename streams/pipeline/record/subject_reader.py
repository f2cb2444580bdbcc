"""Reads one session's own subject from the recording stream, while the session is behind."""

import asyncio
from collections.abc import Callable, Sequence

from handlers.stages.record.admit import Arrival
from handlers.stages.record.pieces import Identity
from schemas import subjects
from schemas.errors import Unavailable
from schemas.ports.messages import Message
from streams.pipeline.record.shared import Shared

READ_BYTES = 4 << 20


class SubjectReader:
    """One reader for each session. `check` runs in a thread."""

    def __init__(
        self, shared: Shared, identity: Identity, check: Callable[[Sequence[Message]], list[Arrival]]
    ) -> None:
        self._shared, self._host, self._check = shared, identity.host, check
        self._subject = subjects.recording(identity.host, identity.session)

    async def read_after(self, at: int, up_to: int) -> tuple[list[Arrival], int]:
        """The checked messages after `at` in one answer, at most to `up_to`; and how far the answer goes.

        Raises Unavailable (record.stream): the stream is not readable that far yet.
        """
        recordings = self._shared.recordings
        async with self._shared.read_slots.turn(self._host):
            messages, more = await recordings.batch(self._subject, at + 1, READ_BYTES)
            arrivals = await self.look([message for message in messages if message.seq <= up_to])
        at = min(messages[-1].seq, up_to) if messages else at
        if more or at == up_to:
            return arrivals, at
        # A short answer may come from a lagging replica: ask the leader for the last sequence.
        last = await recordings.last(self._subject)
        if last is not None and at < last.seq <= up_to:
            raise Unavailable(f"{self._subject} is not readable up to {last.seq} yet", code="record.stream")
        return arrivals, up_to

    async def look(self, messages: Sequence[Message]) -> list[Arrival]:
        """Check messages of the session in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._shared.threads, self._check, messages)
