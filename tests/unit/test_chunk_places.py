"""The places of chunks are kept with each event: compared with sums and sorts over all of them."""

import random
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from handlers.views import chunk_places
from handlers.views.chunk_places import DEAD, LOST, STORED, ChunkPlaces, Place
from schemas.events.chunk import Dead, Redriven
from schemas.types import Frozen
from tests.support.pipeline.chunk_events import UID, events_of

GONE = (STORED, DEAD, LOST)


def story(chooser: random.Random, chunks: int) -> list[Frozen]:
    """Events and dead letters of all chunks in any order, some twice, some of a second run."""
    found: list[Frozen] = []
    for index in range(chunks):
        events: list[Frozen] = [*events_of(index)[: chooser.randrange(7)]]
        if chooser.random() < 0.3:
            found.append(Redriven(session="s-1", uid=UID, index=index, run=1, recorded=1 + index))
            events += events_of(index, run=1)[1 : chooser.randrange(1, 7)]
        if chooser.random() < 0.3:
            run = chooser.randrange(2)
            found.append(
                Dead(stage="store", session="s-1", index=index, run=run, code="chunk.tag", message="m")
            )
        found += events + events[: chooser.randrange(3)]
    chooser.shuffle(found)
    return found


def pace_us(places: ChunkPlaces, now_us: int) -> int | None:
    """The pace, by a sort of every stored chunk."""
    known = [
        (place.moved_us, place.recorded_us)
        for place in places.places.values()
        if place.stage == STORED and place.recorded_us
    ]
    last = sorted(known)[-chunk_places.PACE_CHUNKS :]
    if len(last) < 2:
        return None
    took = [max(b[0] - max(a[0], b[1]), 0) for a, b in pairwise(last)]
    return max(sum(took) // len(took), now_us - places.moved_us, 1)


def check(places: ChunkPlaces, losses: dict[int, str], chooser: random.Random) -> None:
    shown = {index: places.shown(index, losses) for index in sorted(places.places)}
    assert places.stages(losses) == dict(Counter(shown.values()))
    assert places.recorded == sum(place.recorded_seq > 0 for place in places.places.values())
    waiting = [index for index, stage in shown.items() if stage not in GONE]
    pending = places.pending(losses)
    assert (list(pending), len(pending)) == (waiting, len(waiting))
    turns = {index: number for number, index in enumerate(waiting, 1)}
    assert {index: pending.turn(index) for index in shown} == {index: turns.get(index, 0) for index in shown}
    for unstored in (False, True):
        after, limit = chooser.randrange(-1, len(shown) + 1), chooser.randrange(1, len(shown) + 2)
        behind = [
            index
            for index, stage in shown.items()
            if index > after and not (unstored and stage in (STORED, LOST))
        ]
        wanted = behind[:limit], max(len(behind) - limit, 0)
        assert places.page(losses, after, limit, unstored=unstored) == wanted
    assert places.chunk_us(10**6) == pace_us(places, 10**6)


@pytest.mark.parametrize("seed", range(40))
def test_the_sums_of_chunks_are_those_of_all_places(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: `where` counts a chunk twice, or leaves it out of a page, after some order of events."""
    monkeypatch.setattr(chunk_places, "PACE_CHUNKS", 4)
    chooser, places = random.Random(seed), ChunkPlaces()
    losses = {index: "chunk.tag" for index in range(30) if chooser.random() < 0.15}
    for seq, event in enumerate(story(chooser, 25), 1):
        if isinstance(event, Dead):
            places.bury(event)
        else:
            places.take(event, seq, 1000 * seq + chooser.randrange(2000), "")
        if chooser.random() < 0.2:
            check(places, losses, chooser)
    check(places, losses, chooser)


class Counted(dict[int, Place]):
    """Counts the places that are looked at."""

    looks = 0

    def __getitem__(self, index: int) -> Place:
        self.looks += 1
        return super().__getitem__(index)

    def __iter__(self) -> Any:
        raise AssertionError("every place is looked at")

    values = items = keys = __iter__


def test_a_page_of_a_long_session_looks_at_no_other_chunk() -> None:
    """Breaks: each look at a recording of a day stands in the way of every other request of the process."""
    places = ChunkPlaces()
    for index in range(2000):
        for seq, event in enumerate(events_of(index)[: 6 if index < 1500 else 2], 6 * index + 1):
            places.take(event, seq, seq, "")
    places.places = counted = Counted(places.places)
    losses = {7: "chunk.tag"}
    assert places.stages(losses) == {STORED: 1499, LOST: 1, "compress": 500}
    pending = places.pending(losses)
    indexes, more = places.page(losses, 1499, 10, unstored=True)
    assert ([pending.turn(index) for index in indexes], more) == (list(range(1, 11)), 490)
    assert places.chunk_us(10**6)
    assert counted.looks <= 2
