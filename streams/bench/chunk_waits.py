"""Measures how long each chunk waits on its way to the store, from the events of the stages.

1. A chunk's wait is the time between its `recorded` and its first `stored`. A step's wait is the time between
   its input event and its own. These times are the server's.
2. The whole wait begins earlier: when the host sealed the fragment that closed the chunk. That is the first
   fragment of the next chunk. The host runs on the same machine, so both have one clock.
3. Only in a measurement do all sessions end at once. So chunks that their session's end closed are left out,
   and those that may wait behind them: they closed later than `count_until_s`.
"""

import asyncio
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from schemas import subjects
from schemas.events.chunk import ChunkEvent, Recorded
from schemas.events.upcast import read_chunk_event
from schemas.ports import Jet
from schemas.ports.messages import Message

STEPS = (
    subjects.RECORDED,
    subjects.CHUNKED,
    subjects.COMPRESSED,
    subjects.ENCRYPTED,
    subjects.PROVEN,
    subjects.STORED,
)
QUIET_S = 2.0
Chunk = tuple[bytes, int]
"""(uid, index)."""


@dataclass(slots=True)
class Times:
    """When each event of each chunk was first stored, by step; seconds since 1970."""

    at: dict[str, dict[Chunk, float]] = field(default_factory=lambda: {step: {} for step in STEPS})
    sealed_at: dict[Chunk, float] = field(default_factory=dict)
    """When the host sealed the first fragment of each chunk."""
    at_end: set[Chunk] = field(default_factory=set)
    """Chunks that the end of their session closed."""
    open_sessions: set[str] = field(default_factory=set)
    """Sessions that recorded a chunk, and no end."""
    count_until_s: float = inf

    def take(self, message: Message) -> None:
        """Fold one message of CHUNKS."""
        event, session = read_chunk_event(message.data), subjects.session_of(message.subject)
        if not isinstance(event, ChunkEvent):
            self.open_sessions.discard(session)
            return
        chunk = event.uid, event.index
        if isinstance(event, Recorded):
            self.open_sessions.add(session)
            self.sealed_at.setdefault(chunk, event.first_us / 1e6)
            if event.closed_by in ("final", "end"):
                self.at_end.add(chunk)
        step = subjects.step_of(message.subject)
        if step in self.at:
            self.at[step].setdefault(chunk, message.stream_time_ns / 1e9)

    @property
    def recorded(self) -> int:
        return len(self.at[subjects.RECORDED])

    @property
    def timed(self) -> int:
        """Chunks that count for the waits."""
        return sum(map(self._counts, self.at[subjects.STORED]))

    @property
    def missing(self) -> int:
        """Chunks that were recorded and not stored."""
        return len(self.at[subjects.RECORDED].keys() - self.at[subjects.STORED].keys())

    @property
    def last_s(self) -> float:
        """When the last chunk was stored."""
        return max(self.at[subjects.STORED].values(), default=0.0)

    def waits_ms(self) -> dict[str, float]:
        return _quantiles_ms(self._between(subjects.RECORDED, subjects.STORED))

    def whole_ms(self) -> dict[str, float]:
        """The same from the fragment that closed the chunk, as the host sealed it."""
        stored = self.at[subjects.STORED].items()
        ends = ((self._closed_s(chunk), at_s) for chunk, at_s in stored if self._counts(chunk))
        return _quantiles_ms(at_s - closed_s for closed_s, at_s in ends if closed_s is not None)

    def so_far_ms(self, now_s: float) -> dict[str, float]:
        """The waits until now, those of chunks that are not stored yet included."""
        stored = self.at[subjects.STORED]
        recorded = self.at[subjects.RECORDED].items()
        return _quantiles_ms(
            stored.get(chunk, now_s) - at_s for chunk, at_s in recorded if self._counts(chunk)
        )

    def steps_ms(self) -> dict[str, dict[str, float]]:
        """The same by step: where a chunk waits."""
        pairs = itertools.pairwise(STEPS)
        return {step: _quantiles_ms(self._between(before, step)) for before, step in pairs}

    def _closed_s(self, chunk: Chunk) -> float | None:
        """When the host sealed the fragment that closed the chunk; None: it is not recorded yet."""
        uid, index = chunk
        return self.sealed_at.get((uid, index + 1))

    def _counts(self, chunk: Chunk) -> bool:
        return chunk not in self.at_end and (self._closed_s(chunk) or 0.0) <= self.count_until_s

    def _between(self, before: str, after: str) -> Iterable[float]:
        begun: Mapping[Chunk, float] = self.at[before]
        for chunk, at_s in self.at[after].items():
            if chunk in begun and self._counts(chunk):
                yield at_s - begun[chunk]


async def read_times(jet: Jet, subject: str = subjects.ALL_CHUNKS) -> Times:
    """The times of all chunks that the stream holds now."""
    times = Times()
    async for message in jet.read_all(subjects.CHUNKS, subject):
        times.take(message)
    return times


async def quiet(jet: Jet) -> None:
    """Return when no event has come for QUIET_S."""
    last, now = -1, (await jet.info(subjects.CHUNKS)).last_seq
    while last != now:
        await asyncio.sleep(QUIET_S)
        last, now = now, (await jet.info(subjects.CHUNKS)).last_seq


def _quantiles_ms(waits_s: Iterable[float]) -> dict[str, float]:
    ordered = sorted(waits_s)
    shares = (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    return {name: 1000 * quantile(ordered, share) for name, share in shares}


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed; 0 of none."""
    return ordered[max(0, min(len(ordered) - 1, round(share * len(ordered)) - 1))] if ordered else 0.0
