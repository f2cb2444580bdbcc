"""Owns what a contender is: what it is given, and what it answers."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schemas.config.settings import Settings
from streams.bench.data import Source
from streams.bench.meter import Used


@dataclass(frozen=True, slots=True)
class Task:
    """One measurement of one contender.

    folder: an empty one, its own, removed afterwards. environment: of its processes, with no path but theirs.
    """

    source: Source
    folder: Path
    settings: Settings
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Measure:
    """What came of it. `stored`: bytes on disk; `check`ed against the source."""

    seconds: float
    """From the first fragment to the last chunk durable and read back; of a peer, the whole run."""
    chunks: int
    stored: int
    used: Mapping[str, Used]
    others: float
    """Share of all cores that processes beside these took meanwhile."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Other figures that only this contender has; times in seconds."""


Contender = Callable[[Task], Awaitable[Measure]]
