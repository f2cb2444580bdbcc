"""The lines of docs/api.md, run as they stand there."""

import os
import re
import subprocess
import sys
from pathlib import Path
from random import Random

from tests.api.conftest import Served
from tests.support.machine.waiting import PATIENCE_S

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


def test_the_documented_session_runs_as_it_stands_there(served: Served, tmp_path: Path) -> None:
    """Breaks: a reader types the lines of the page, and gets an error."""
    lines = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert len(lines) >= 6
    (tmp_path / "recording.mp4").write_bytes(Random(3).randbytes(2_000_000))
    program = f'lucid() {{ "{sys.executable}" -P -m streams.cli.main "$@"; }}'
    script = "\n".join(["set -euo pipefail", program, f"data='{served.data}'", *lines])
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "LUCID_DATA": str(served.data), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "october-1 is true" in done.stdout
