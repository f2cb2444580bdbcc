"""What the program says of a session whose source was purged."""

import json
import random
import time
from pathlib import Path
from typing import Any

from tests.support.machine.waiting import PATIENCE_S
from tests.support.program.running import end, ok, up

WORDS = ("is gone", "[chunk.source_gone]", "lucid verify old-01")


def test_without_its_source_a_session_is_verified_and_exported_and_not_replayed(
    lucid: Any, tmp_path: Path
) -> None:
    """Breaks: a day after its seal nobody can get at a recording, or a replay of it hangs or lies."""
    data, source = tmp_path / "data", tmp_path / "source"
    source.write_bytes(random.Random(5).randbytes(1_000_000))
    process = up(lucid, data, SOURCE_RETENTION="0")
    try:
        result = ok(lucid, "record", "--input", str(source), "--session", "old-01", data=data)
        assert result["sealed"]
        deadline_s = time.monotonic() + PATIENCE_S
        while (said := lucid("replay", "old-01", data=data)).returncode == 0:
            assert time.monotonic() < deadline_s
            time.sleep(0.5)
        assert said.returncode == 5, said.stderr
        assert all(word in said.stderr for word in WORDS), said.stderr
        told = json.loads(lucid("replay", "old-01", "--json", data=data).stdout)
        assert told["code"] == "chunk.source_gone"
        assert lucid("verify", "old-01", data=data).returncode == 0
        ok(lucid, "export", "old-01", "--out", str(tmp_path / "back"), data=data)
        assert (tmp_path / "back").read_bytes() == source.read_bytes()
        watched = lucid("watch", "old-01", data=data)
        assert watched.returncode == 0
        assert "gone with its source" in watched.stdout
        lines = lucid("watch", "old-01", "--json", data=data).stdout.splitlines()
        assert [json.loads(line)["type"] for line in lines] == ["lucid.chunk.ended.v1"]
        shown = ok(lucid, "sessions", "show", "old-01", data=data)
        assert [shown[what] for what in ("recorded", "stored", "plain")] == [
            *(result["recorded"], result["recorded"], 1_000_000)
        ]
    finally:
        assert end(process) == 0
