"""A hundred sessions live their whole life while the lifecycle service is killed."""

import os
import time
from pathlib import Path

from tests.support.pipeline.lifecycle_storm import storm

SESSIONS, KILLS = 100, 10
SEED = int(os.environ.get("KILL_SEED", "0")) or time.time_ns() % 1_000_000


async def test_every_session_reaches_its_end_and_no_transition_is_doubled_or_lost(tmp_path: Path) -> None:
    """Breaks: a conductor that dies leaves a session half way, or does twice what was asked for once."""
    print(f"KILL_SEED={SEED}")
    passed = await storm(tmp_path, SESSIONS, KILLS, SEED)
    assert len(passed.cycles) == SESSIONS
    print(f"{KILLS} kills, {passed.repeated} requests repeated, {passed.cycles.total()} pauses")
