"""A system that has seen more sessions than one message can list, as people run it."""

import json
from typing import Any

FINISHED = 1300


def test_after_1300_sealed_sessions_the_system_starts_and_answers(lucid: Any, tmp_path: Any) -> None:
    """Breaks: one day `lucid up` never starts again, and every recording is out of reach."""
    done = lucid("bench", "--finished", str(FINISHED), "--one-host", "--json", data=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)["results"]
    assert (said["sessions"], said["hosts"]) == (FINISHED, 1)
    assert said["start"]["peak_bytes"].keys() == {"server", "conductor", "worker", "supervisor"}
    assert {"create_ms", "room_ms", "show_ms", "list_s"} <= said.keys()
