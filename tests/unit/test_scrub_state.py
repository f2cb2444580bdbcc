"""The state of the scrub on its way to the disk: its order, its owner, and its failures."""

import asyncio
import threading
from dataclasses import dataclass, field

import pytest

from schemas.errors import NoSpace
from schemas.events.scrub import ScrubState, read_state
from streams.evidence.scrub_progress import ScrubProgress
from streams.evidence.session_proof import Checked, Fault

FAULT = Fault("chunk 1", "chunk.digest", "is not what was sealed", "alarm")
LONG_S = 0.5


@dataclass
class Place:
    """A place of which the first write lasts until another one has ended."""

    written: list[bytes] = field(default_factory=list)
    released_after: int = -1
    failure: Exception | None = None
    begun: threading.Event = field(default_factory=threading.Event)
    other: threading.Event = field(default_factory=threading.Event)

    def take(self) -> bool:
        return True

    def read(self) -> bytes | None:
        return self.written[-1] if self.written else None

    def write(self, state: bytes) -> None:
        if self.failure is not None:
            raise self.failure
        if not self.begun.is_set():
            self.begun.set()
            self.other.wait(LONG_S)
        self.written.append(state)
        self.other.set()

    def release(self) -> None:
        self.released_after = len(self.written)

    def now(self) -> ScrubState:
        """The state on the disk."""
        return read_state(self.written[-1])


async def first_write(progress: ScrubProgress, place: Place) -> "asyncio.Task[None]":
    """A write that is under way."""
    task = asyncio.create_task(progress.checkpoint(now=True))
    assert await asyncio.to_thread(place.begun.wait, 60)
    return task


async def test_a_slow_write_never_replaces_a_newer_state() -> None:
    """Breaks: after a kill the state knows nothing of an answered acknowledgement, or of a repair."""
    place = Place()
    progress = ScrubProgress(place, lambda: 5)
    first = await first_write(progress, place)
    await asyncio.gather(progress.intend("demo-01", FAULT), progress.checkpoint(now=True))
    await first
    assert [one.place for one in place.now().alarms] == ["chunk 1"]
    progress.acknowledge("demo-01", "an operator")
    await progress.write()
    assert place.now() == progress.state


async def test_a_write_that_nobody_awaits_any_more_keeps_its_turn() -> None:
    """Breaks: a client hangs up, and the older state of its thread lands on a newer one."""
    place = Place()
    progress = ScrubProgress(place, lambda: 5)
    first = await first_write(progress, place)
    first.cancel()
    await progress.intend("demo-01", FAULT)
    assert place.now().alarms
    await asyncio.to_thread(place.other.wait, 60)
    assert len(place.written) == 2
    assert place.now().alarms


async def test_a_process_that_released_the_state_writes_no_more() -> None:
    """Breaks: two processes write one state, and each undoes the other's alarms."""
    place = Place()
    progress = ScrubProgress(place, lambda: 5)
    first = await first_write(progress, place)
    await progress.release()
    await first
    await progress.checkpoint(now=True)
    assert place.released_after == len(place.written) == 1


async def test_a_state_that_is_read_late_does_not_replace_that_of_the_owner() -> None:
    """Breaks: a question of a person, asked just before the scrub began, forgets its first alarms."""
    place = Place()
    progress = ScrubProgress(place, lambda: 5)
    progress.drop("demo-02")
    await progress.write()
    await progress.intend("demo-01", FAULT)
    await progress.load(lambda: False)
    assert progress.state.alarms


async def test_a_state_that_cannot_be_written_is_an_answer_not_a_silence() -> None:
    """Breaks: a full disk, and an acknowledgement that was answered sounds again after a restart."""
    place = Place(failure=NoSpace("no space left", code="scrub.state"))
    progress = ScrubProgress(place, lambda: 5)
    await progress.checkpoint(now=True)
    with pytest.raises(NoSpace, match="no space left"):
        await progress.write()


def test_the_place_in_a_session_names_the_source_that_was_checked() -> None:
    """Breaks: after a restart all fragments of a session are read again, or some are never read."""
    progress = ScrubProgress(Place(), lambda: 5)
    progress.enter("demo-01", 1)
    progress.count(Checked(1, 0, 0, None, "chunk 0"), "demo-01", placed=True)
    progress.count(Checked(0, 9, 0, None, "source of chunk 4", source=5), "demo-01", placed=True)
    progress.count(Checked(0, 9, 0, None, "source of chunk 8", source=9), "demo-01", placed=False)
    assert (progress.enter("demo-01", 1).index, progress.enter("demo-01", 1).source) == (1, 5)
    assert progress.enter("demo-01", 2).source == 0, "another seal"
