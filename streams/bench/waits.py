"""Owns how long chunks waited: a fold over the chunk events' own times, as the server had them.

1. A chunk's wait is the time between its `recorded` and its first `stored`; a step's, between the event that
   it reads and its own.
2. Chunks that their session's end closed are left out: here all sessions end at once, which no day brings.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from schemas import subjects
from schemas.events.chunk import ChunkEvent, Recorded
from schemas.events.upcast import read_event
from schemas.ports.messages import Message

STEPS = (
    subjects.RECORDED,
    subjects.CHUNKED,
    subjects.COMPRESSED,
    subjects.ENCRYPTED,
    subjects.PROVEN,
    subjects.STORED,
)
Chunk = tuple[bytes, int]
"""(uid, index)."""


@dataclass(slots=True)
class Times:
    """When each event of each chunk was first stored, by step; seconds since 1970."""

    at: dict[str, dict[Chunk, float]] = field(default_factory=lambda: {step: {} for step in STEPS})
    at_end: set[Chunk] = field(default_factory=set)
    """Closed by the end of their session."""
    open_sessions: set[str] = field(default_factory=set)
    """Those that recorded a chunk, and no end."""

    def take(self, message: Message) -> None:
        """Fold one message of CHUNKS."""
        event, session = read_event(message.data), subjects.session_of(message.subject)
        if not isinstance(event, ChunkEvent):
            self.open_sessions.discard(session)
            return
        chunk = event.uid, event.index
        if isinstance(event, Recorded):
            self.open_sessions.add(session)
            if event.closed_by in ("final", "end"):
                self.at_end.add(chunk)
        step = subjects.step_of(message.subject)
        if step in self.at:
            self.at[step].setdefault(chunk, message.stream_time_ns / 1e9)

    @property
    def recorded(self) -> int:
        return len(self.at[subjects.RECORDED])

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

    def steps_ms(self) -> dict[str, dict[str, float]]:
        """The same by step: where a chunk waits."""
        pairs = itertools.pairwise(STEPS)
        return {step: _quantiles_ms(self._between(before, step)) for before, step in pairs}

    def _between(self, before: str, after: str) -> Iterable[float]:
        begun: Mapping[Chunk, float] = self.at[before]
        for chunk, at_s in self.at[after].items():
            if chunk in begun and chunk not in self.at_end:
                yield at_s - begun[chunk]


def _quantiles_ms(waits_s: Iterable[float]) -> dict[str, float]:
    ordered = sorted(waits_s)
    named = (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    return {name: 1000 * quantile(ordered, share) for name, share in named}


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value that so large a share does not exceed; 0 of nothing."""
    return ordered[max(0, min(len(ordered) - 1, round(share * len(ordered)) - 1))] if ordered else 0.0
