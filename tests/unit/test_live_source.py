"""Letting the source of a live session go, where the replica that is read knows less than the log."""

from dataclasses import replace
from typing import Any

import pytest

from handlers.lifecycle.decide import decide
from handlers.lifecycle.session import evolve, initial
from schemas.errors import Unavailable
from schemas.ports.messages import Message
from streams.event_store.recordings import Recordings
from streams.retention.live_source import LiveSources
from tests.support.pipeline.prepared import Prepared


class Lagging:
    """A broker whose replica has nothing of a session yet. It cannot erase."""

    async def batch(self, *_: object, **__: object) -> tuple[list[Message], bool]:
        return [], False

    async def get(self, *_: object) -> None:
        return None


async def test_a_replica_that_lags_is_waited_for() -> None:
    """Breaks: a replica that comes back from a pause stops the freeing of space with a bug report."""
    create = Prepared("live-01", 1, []).create()
    session = initial("live-01")
    for event in decide(session, create):
        session = evolve(session, event, 1)
    jet: Any = Lagging()
    sources = LiveSources(Recordings(jet, 1), jet)
    with pytest.raises(Unavailable, match=r"release\.events"):
        await sources.largest([replace(session, released_chunks=1, released_to=9)], 0)
