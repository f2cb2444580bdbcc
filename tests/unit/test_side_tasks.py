"""The side tasks of record."""

import logging
from unittest.mock import AsyncMock

import pytest

from streams.pipeline.record.side_tasks import PLACES, SideTasks


async def test_what_is_dropped_is_told_and_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Breaks: notes about refused fragments vanish unseen, or a hostile host fills the disk with log."""
    side_tasks = SideTasks()
    with caplog.at_level(logging.WARNING, logger="lucid.record"):
        for _ in range(PLACES):
            side_tasks.add(AsyncMock())
        assert caplog.messages == []
        for _ in range(1000):
            side_tasks.add(AsyncMock())
    assert caplog.messages == [f"side_tasks_dropped count={1 << n}" for n in range(10)]
