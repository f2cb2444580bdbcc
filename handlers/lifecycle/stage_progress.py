"""Judges whether a stage stands still: something waits for it, and it has finished nothing for too long.

1. Only finished work moves a stage. Messages that arrive, are delivered or fail move nothing.
2. A stage that has nothing to do stands still for ever, and is not stalled.
3. Nothing is judged of a time in which nobody looked.
4. If all that waits belongs to one host, and a later chunk of another session was finished, the stage works.
   The sessions that wait are left behind, and their own states tell why.
5. This is the only judgement: readiness tells its result.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple


class Sample(NamedTuple):
    """One look at a stage. waiting: messages, or recordings, that it has not done; moved: its positions."""

    waiting: int
    moved: tuple[int, ...]


class Progress(NamedTuple):
    """A stage as far as it was seen. since_s: when it last moved, or had nothing to do."""

    sample: Sample
    since_s: float
    seen_s: float


class Finished(NamedTuple):
    """The newest result of a stage. recorded: the sequence of the `recorded` event of its chunk."""

    session: str
    recorded: int


def observed(before: Progress | None, sample: Sample, now_s: float, unseen_s: float) -> Progress:
    """Return the progress after one more look. unseen_s: after so long without a look, all begins anew."""
    stands_still = (
        before is not None
        and 0 < before.sample.waiting <= sample.waiting
        and before.sample.moved == sample.moved
        and now_s - before.seen_s <= unseen_s
    )
    return Progress(sample, before.since_s if before and stands_still else now_s, now_s)


def still_s(progress: Progress) -> float:
    """How long something has waited while the stage finished nothing, in seconds."""
    return progress.seen_s - progress.since_s if progress.sample.waiting else 0.0


def left_behind(waiting: Mapping[str, int], newest: Finished | None, host_of: Callable[[str], str]) -> bool:
    """Whether the stage works, and only leaves sessions of one host behind.

    waiting: by session with an unfinished newest chunk, when its first unfinished chunk was recorded.
    """
    if len({host_of(name) for name in waiting}) > 1:
        return False
    return all(
        newest is not None and newest.session not in waiting and newest.recorded > recorded
        for recorded in waiting.values()
    )
