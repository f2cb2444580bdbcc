"""Folds the events of one session's chunks into the place of each chunk, and estimates when it is stored.

1. A chunk is at the stage that reads its newest event. A stored chunk stays stored.
2. An event of an older run than the newest one changes nothing, unless it is `stored`.
3. A doubled or redelivered event changes nothing.
4. Times are those of the stream, by the server's clock, in µs. Pure.
5. Sums and orders are kept with each event: an answer costs its page and the losses, however long the session
   is.
"""

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, pairwise
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
    recorded: int = 0
    """Chunks of which `recorded` is known."""
    _order: list[int] = field(default_factory=list)
    """Every index, ascending; so are the two below."""
    _unstored: list[int] = field(default_factory=list)
    _dead: list[int] = field(default_factory=list)
    _stages: Counter[str] = field(default_factory=Counter)
    """How many places are shown at each stage, without losses."""
    _pace: list[tuple[int, int]] = field(default_factory=list)
    """(moved_us, recorded_us) of the PACE_CHUNKS that were stored last, ascending."""

    def take(self, event: Frozen, seq: int, at_us: int, trace: str) -> None:
        """Fold one event of CHUNKS."""
        if isinstance(event, Ended):
            self.ended, self.fragments = True, event.fragments
            self.cut_to = max([self.cut_to, *(one.last_seq + 1 for one in event.tracks if one.id == MAIN)])
            return
        if not isinstance(event, Recorded | StageEvent):
            return
        place, before = self._place(event.index)
        was_recorded, was_paced = place.recorded_seq > 0, _is_paced(place)
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
        self.recorded += place.recorded_seq > 0 and not was_recorded
        if _is_paced(place) and not was_paced:
            insort(self._pace, (place.moved_us, place.recorded_us))
            del self._pace[:-PACE_CHUNKS]
        self._moved(event.index, before, place.shown)

    def bury(self, event: Dead) -> None:
        """Fold one dead letter."""
        if event.index < 0:
            return
        death = Death(event.run, event.stage, event.code, event.message)
        place, before = self._place(event.index)
        if place.death is None or place.death.run <= death.run:
            place.death = death
        self._moved(event.index, before, place.shown)

    def _place(self, index: int) -> tuple[Place, str]:
        """The place of a chunk, and the stage that it is shown at; a new place is shown nowhere yet."""
        place = self.places.get(index)
        if place is not None:
            return place, place.shown
        place = self.places[index] = Place()
        insort(self._order, index)
        return place, ""

    def _moved(self, index: int, before: str, after: str) -> None:
        if before == after:
            return
        if before:
            self._stages[before] -= 1
        self._stages[after] += 1
        _keep(self._dead, index, was_in=before == DEAD, is_in=after == DEAD)
        _keep(self._unstored, index, was_in=before not in ("", STORED), is_in=after != STORED)

    def shown(self, index: int, losses: Mapping[int, str]) -> str:
        """The stage of a chunk; `lost` if its loss was accepted."""
        return LOST if index in losses else self.places[index].shown

    def stages(self, losses: Mapping[int, str]) -> dict[str, int]:
        """How many chunks are at each stage."""
        found = Counter(self._stages)
        for index in losses:
            if index in self.places:
                found[self.places[index].shown] -= 1
                found[LOST] += 1
        return {stage: count for stage, count in found.items() if count}

    def chunk_us(self, now_us: int) -> int | None:
        """The time that a chunk takes when others wait before it; None: too few were stored.

        A pipeline that moves nothing is expected to rest for as long again.
        """
        if len(self._pace) < 2:
            return None
        took = [max(b[0] - max(a[0], b[1]), 0) for a, b in pairwise(self._pace)]
        return max(sum(took) // len(took), now_us - self.moved_us, 1)

    def pending(self, losses: Mapping[int, str]) -> "Pending":
        """The chunks that a stage has."""
        lost = {index for index in losses if _holds(self._unstored, index)}
        return Pending(self._unstored, sorted(lost.union(self._dead)))

    def page(
        self, losses: Mapping[int, str], after: int, limit: int, *, unstored: bool
    ) -> tuple[list[int], int]:
        """The next chunks behind `after`, and how many come behind these.

        unstored: only chunks that are neither stored nor lost.
        """
        order = self._unstored if unstored else self._order
        first = bisect_right(order, after)
        if not unstored:
            return order[first : first + limit], max(len(order) - first - limit, 0)
        lost = sum(index > after and _holds(order, index) for index in losses)
        left = (index for index in islice(order, first, None) if index not in losses)
        page = list(islice(left, limit))
        return page, len(order) - first - lost - len(page)

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


@dataclass(frozen=True, slots=True)
class Pending:
    """The chunks of `unstored` without those of `resting`. Both are ascending; the first holds the second."""

    unstored: list[int]
    resting: list[int]

    def __len__(self) -> int:
        return len(self.unstored) - len(self.resting)

    def __iter__(self) -> Iterator[int]:
        resting = set(self.resting)
        return (index for index in self.unstored if index not in resting)

    def turn(self, index: int) -> int:
        """How many chunks are stored until this one is, itself included; 0: it is not pending."""
        if not _holds(self.unstored, index) or _holds(self.resting, index):
            return 0
        return bisect_right(self.unstored, index) - bisect_left(self.resting, index)


def _holds(ascending: list[int], index: int) -> bool:
    place = bisect_left(ascending, index)
    return place < len(ascending) and ascending[place] == index


def _keep(ascending: list[int], index: int, *, was_in: bool, is_in: bool) -> None:
    """Insert or remove an index."""
    if is_in and not was_in:
        insort(ascending, index)
    elif was_in and not is_in:
        del ascending[bisect_left(ascending, index)]


def _is_paced(place: Place) -> bool:
    """Whether the place tells how long its chunk took. Neither of its two times changes any more."""
    return place.stage == STORED and place.recorded_us > 0


def _is_news(place: Place, event: Recorded | StageEvent) -> bool:
    if place.stage == STORED:
        return False
    if isinstance(event, Stored) or event.run > place.run or not place.seq:
        return True
    return event.run == place.run and STAGES.index(NEXT_STAGE[type(event)]) > STAGES.index(place.stage)
