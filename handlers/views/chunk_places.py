"""Folds the events of one session's chunks into the place of each chunk, and estimates when it is stored.

1. A chunk is at the stage that reads its newest event. A stored chunk stays stored.
2. An event of an older run than the newest one changes nothing, unless it is `stored`.
3. A doubled or redelivered event changes nothing.
4. Times are those of the stream, by the server's clock, in µs. Pure.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from schemas.events.chunk import (
    Chunked,
    Compressed,
    Dead,
    Encrypted,
    Ended,
    Proven,
    Recorded,
    Redriven,
    StageEvent,
    Stored,
)
from schemas.format.fragment import MAIN
from schemas.types import Frozen

STORED, DEAD, LOST = "stored", "dead", "lost"
NEXT_STAGE: Mapping[type[Frozen], str] = {
    Recorded: "chunk",
    Redriven: "chunk",
    Chunked: "compress",
    Compressed: "encrypt",
    Encrypted: "merkle",
    Proven: "store",
    Stored: STORED,
}
"""The stage that reads an event."""
STAGES = tuple(dict.fromkeys(NEXT_STAGE.values()))
"""In order; the last one is the store, which holds the chunk."""
PACE_CHUNKS = 32
"""Chunks that were stored last, from which the pace is measured."""


class Death(NamedTuple):
    """The dead letter of a chunk."""

    run: int
    stage: str
    code: str
    message: str


@dataclass(slots=True)
class Place:
    """Where one chunk is. seq: of the event in CHUNKS that its stage reads; 0: only DEAD names it."""

    stage: str = STAGES[0]
    run: int = 0
    seq: int = 0
    recorded_seq: int = 0
    recorded_us: int = 0
    """0: not known."""
    moved_us: int = 0
    trace: str = ""
    death: Death | None = None

    @property
    def shown(self) -> str:
        """The stage, or `dead`."""
        is_dead = self.death is not None and self.stage != STORED and self.death.run >= self.run
        return DEAD if is_dead else self.stage


@dataclass(slots=True)
class ChunkPlaces:
    """The places of one session's chunks, by index."""

    places: dict[int, Place] = field(default_factory=dict)
    ended: bool = False
    cut_to: int = 0
    """Seq behind the last fragment of the main track that is inside a chunk."""
    fragments: int = 0
    """Fragments inside chunks."""
    moved_us: int = 0
    """When a chunk last moved to another stage."""

    def take(self, event: Frozen, seq: int, at_us: int, trace: str) -> None:
        """Fold one event of CHUNKS."""
        if isinstance(event, Ended):
            self.ended, self.fragments = True, event.fragments
            self.cut_to = max([self.cut_to, *(one.last_seq + 1 for one in event.tracks if one.id == MAIN)])
            return
        if not isinstance(event, Recorded | StageEvent):
            return
        place = self.places.setdefault(event.index, Place())
        self.moved_us = max(self.moved_us, at_us)
        if isinstance(event, Recorded):
            self.fragments = max(self.fragments, event.state.fragments)
            if event.track == MAIN:
                self.cut_to = max(self.cut_to, event.last_seq + 1)
            place.recorded_seq, place.recorded_us = place.recorded_seq or seq, place.recorded_us or at_us
        else:
            place.recorded_seq = place.recorded_seq or event.recorded
        if _is_news(place, event):
            place.stage, place.run = NEXT_STAGE[type(event)], max(event.run, place.run)
            place.seq, place.moved_us, place.trace = seq, at_us, trace or place.trace

    def bury(self, event: Dead) -> None:
        """Fold one dead letter."""
        if event.index < 0:
            return
        death = Death(event.run, event.stage, event.code, event.message)
        place = self.places.setdefault(event.index, Place())
        if place.death is None or place.death.run <= death.run:
            place.death = death

    def shown(self, index: int, losses: Iterable[int]) -> str:
        """The stage of a chunk; `lost` if its loss was accepted."""
        return LOST if index in losses else self.places[index].shown

    def chunk_us(self, now_us: int) -> int | None:
        """The time that a chunk takes when others wait before it; None: too few were stored.

        A pipeline that moves nothing is expected to rest for as long again.
        """
        known = (place for place in self.places.values() if place.stage == STORED and place.recorded_us)
        last = sorted(known, key=lambda place: place.moved_us)[-PACE_CHUNKS:]
        if len(last) < 2:
            return None
        took = [max(b.moved_us - max(a.moved_us, b.recorded_us), 0) for a, b in pairwise(last)]
        return max(sum(took) // len(took), now_us - self.moved_us, 1)

    def pending(self, losses: Iterable[int]) -> list[int]:
        """The chunks that a stage has, by index."""
        gone = (STORED, DEAD, LOST)
        return [index for index in sorted(self.places) if self.shown(index, losses) not in gone]

    def behind(self) -> int:
        """The sequence after which CHUNKS holds each event of the chunks that are not stored.

        Some chunks before them are among these, for the pace.
        """
        prefix = 0
        while (place := self.places.get(prefix)) is not None and place.stage == STORED:
            prefix += 1
        if prefix == 0:
            return 0
        return max(self.places[max(prefix - PACE_CHUNKS, 0)].recorded_seq - 1, 0)


def _is_news(place: Place, event: Recorded | StageEvent) -> bool:
    if place.stage == STORED:
        return False
    if isinstance(event, Stored) or event.run > place.run or not place.seq:
        return True
    return event.run == place.run and STAGES.index(NEXT_STAGE[type(event)]) > STAGES.index(place.stage)
