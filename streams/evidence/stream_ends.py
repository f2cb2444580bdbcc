"""Watches the ends of the streams: one that was cut is an alarm, even if it has grown again.

1. A stream's last sequence never falls. One that is lower than before was cut: the server dropped damaged
   blocks, or a backup was restored.
2. The state holds the server's time of the last message, too. Another time under the same number is another
   message: the stream was cut and has grown since. A message that is gone says nothing.
3. After a person has acknowledged the alarm, the stream counts as it is now.
"""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from handlers.evidence import alarms
from streams.event_store.event_store import EventStore
from streams.evidence.scrub_progress import ScrubProgress
from streams.evidence.session_proof import Checked, Fault
from streams.evidence.stream_proof import PROVEN, end_of

WATCH_S = 60.0
"""How often the ends are looked at, in a pass and between two."""


@dataclass(slots=True)
class StreamEnds:
    """One for each scrub."""

    store: EventStore
    progress: ScrubProgress
    _looked_s: float = 0.0

    @property
    def is_due(self) -> bool:
        """Whether the last look is WATCH_S ago."""
        return time.monotonic() >= self._looked_s + WATCH_S

    async def look(self) -> AsyncIterator[Checked]:
        """Look at the end of each stream. Yields those that were cut."""
        self._looked_s = time.monotonic()
        for stream in sorted({*self.store.recordings.streams, *PROVEN}):
            if fault := await self._cut(stream):
                yield Checked(0, 0, 0, fault, fault.place)

    async def _cut(self, stream: str) -> Fault | None:
        """Keep the end of a stream. Returns the fault that it was cut since the last look."""
        state, place = self.progress.state, end_of(stream)
        before, before_us = state.ends.get(stream, 0), state.end_times.get(stream, 0)
        seq = (await self.store.jet.info(stream)).last_seq
        found_us = await self._time_us(stream, before) if before_us and before <= seq else 0
        text = ""
        if seq < before:
            text = f"{stream} ends with message {seq}; it had message {before}"
        elif found_us not in (0, before_us):
            text = f"message {before} of {stream} is another one than before: it was cut, and has grown"
        known = alarms.find(self.progress.state.alarms, "", place)
        if text and (known is None or not known.acknowledged_us):
            return Fault(place, "stream.cut", text, "alarm") if known is None else None
        time_us = found_us if seq == before and found_us else await self._time_us(stream, seq)
        self.progress.keep_end(stream, seq, time_us)
        return None

    async def _time_us(self, stream: str, seq: int) -> int:
        """The server's time of a message; 0: there is none."""
        found = await self.store.jet.get(stream, seq) if seq else None
        return found.stream_time_ns // 1000 if found is not None else 0
