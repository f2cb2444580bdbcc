"""Folds the chunk events of one session into the conductor's facts, and reads on from its last position.

1. Each subject is read from the sequence after the last folded one, so a look costs only new events.
2. Every event folds by chunk index: a doubled or redelivered event changes nothing.
3. It is a cache: it can be dropped and made again at any time.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from handlers.lifecycle.next_action import Facts
from handlers.lifecycle.session import Session
from schemas import subjects
from schemas.errors import Rejected
from schemas.events.chunk import Dead, Ended, Recorded, Redriven, Stored
from schemas.events.upcast import read_chunk_event
from schemas.ports import Reader
from schemas.types import Frozen

READ_BYTES = 4 << 20
DEAD_STEP = "dead"
STEPS_READ = (DEAD_STEP, subjects.REDRIVEN, subjects.STORED, subjects.RECORDED)
"""In reading order. A stored or dead chunk was recorded before, so `recorded` is read last and knows it."""


@dataclass(slots=True)
class ChunkProgress:
    """The progress of one session. Used by one task at a time."""

    session_id: str
    recorded: dict[int, int] = field(default_factory=dict)
    stored: dict[int, int] = field(default_factory=dict)
    driven: dict[int, int] = field(default_factory=dict)
    dead: dict[tuple[int, int], str] = field(default_factory=dict)
    ended_chunks: int | None = None
    plain: int = 0
    _position: dict[str, int] = field(default_factory=dict)

    async def read_on(self, jet: Reader, steps: Collection[str] = STEPS_READ) -> None:
        """Fold the events on the subjects of these steps since the last read. Raises Unavailable."""
        for step in STEPS_READ:
            if step not in steps:
                continue
            if step == DEAD_STEP:
                await self._read(jet, subjects.DEAD, subjects.dead("*", self.session_id))
            else:
                await self._read(jet, subjects.CHUNKS, subjects.chunk(step, self.session_id))

    def facts(self, session: Session, now_us: int, **seen: Any) -> Facts:
        """The facts now. seen: those that are not of the chunks."""
        return Facts(
            session,
            now_us,
            recorded=self.recorded,
            stored=self.stored,
            driven=self.driven,
            dead=self.dead,
            ended_chunks=self.ended_chunks,
            plain=self.plain,
            **seen,
        )

    async def _read(self, jet: Reader, stream: str, subject: str) -> None:
        more = True
        while more:
            start = self._position.get(subject, 0) + 1
            messages, more = await jet.batch(stream, subject, start, max_bytes=READ_BYTES)
            for message in messages:
                try:
                    self._fold(read_chunk_event(message.data), message.seq)
                except Rejected:
                    continue  # of a newer version, or foreign: no fact of ours
                finally:
                    self._position[subject] = message.seq

    def _fold(self, event: Frozen, seq: int) -> None:
        match event:
            case Recorded():
                self.recorded[event.index] = seq
                self.plain = max(self.plain, event.state.plain)
            case Ended():
                self.ended_chunks = event.chunks
            case Stored():
                self.stored[event.index] = seq
            case Redriven():
                self.driven[event.index] = max(self.driven.get(event.index, 0), event.run)
            case Dead() if event.index >= 0:
                self.dead[event.index, event.run] = event.code
