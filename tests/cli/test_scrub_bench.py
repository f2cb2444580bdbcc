"""`lucid bench --scrub` as people run it, at a size that says nothing about speed."""

import json
from pathlib import Path
from typing import Any

Lucid = Any
"""The `Program` of conftest.py."""
CHUNKS = 40


def test_a_scrub_of_small_chunks_is_measured_with_and_without_its_bound(lucid: Lucid, tmp_path: Path) -> None:
    """Breaks: nobody can say how long a pass takes, and how much of the disk and the pipeline it costs."""
    said = lucid("bench", "--scrub", str(CHUNKS), "--json", data=tmp_path / "data", SCRUB_MB_PER_S="20")
    assert said.returncode == 0, said.stderr
    figures = json.loads(said.stdout)["results"]
    assert (figures["chunks"], figures["bound_bytes_per_s"]) == (CHUNKS, 20e6)
    for name in ("unbound", "bound"):
        row = figures[name]
        assert min(row["chunks_per_s"], row["mb_per_s"], row["cpu_s_per_gb"], row["cpu_s_per_1000"]) > 0
        assert row["disk_read_bytes"] >= 0
    assert figures["pipeline"]["ratio"] > 0
