"""Finds the sessions of a host that are missing: its counter has holes.

1. A host counts its sessions, and the log takes each counter once, for ever (host_log.py). A hole is a
   session that the host has begun, and that was never created here.
2. A crash of the host, or a name that it gave up, leaves a hole, too. A session that was kept from the
   platform leaves one as soon as a later one comes.
3. A subject without a number is of a stranger, and counts for nothing.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from schemas import subjects
from schemas.ports import Reader

Span = tuple[int, int]
NUMBER = re.compile(r"[1-9][0-9]{0,15}")
"""A counter: below 2^53."""


@dataclass(frozen=True, slots=True)
class HostCounters:
    """The counters of one key. missing: the holes, each with its first and its last number, in order."""

    sessions: int
    last: int
    missing: tuple[Span, ...]

    @property
    def missing_count(self) -> int:
        return sum(last - first + 1 for first, last in self.missing)


async def host_counters(jet: Reader, key: bytes) -> HostCounters:
    """Read the counters of a key. A counter that is taken meanwhile may be there or not."""
    found = await jet.subject_counts(subjects.LIFECYCLE, subjects.counters(key))
    ends = (subject.rsplit(".", 1)[1] for subject in found)
    return counted(int(end) for end in ends if NUMBER.fullmatch(end))


def counted(numbers: Iterable[int]) -> HostCounters:
    """Count the numbers, and find the holes below the greatest number. Pure."""
    taken, missing, expected = sorted(set(numbers)), list[Span](), 1
    for number in taken:
        if number > expected:
            missing.append((expected, number - 1))
        expected = number + 1
    return HostCounters(len(taken), expected - 1, tuple(missing))
