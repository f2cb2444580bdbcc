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


def documented() -> list[str]:
    """The shell lines of the page, block by block."""
    return re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)


def typed(lines: list[str], folder: Path, data: Path, **environment: str) -> str:
    """What the lines print, typed in a folder that holds a recording."""
    (folder / "recording.mp4").write_bytes(Random(3).randbytes(2_000_000))
    program = f'lucid() {{ "{sys.executable}" -P -m streams.cli.main "$@"; }}'
    done = subprocess.run(
        ["bash", "-c", "\n".join(["set -euo pipefail", program, f"data='{data}'", *lines])],
        cwd=folder,
        env={**os.environ, "LUCID_DATA": str(data), "NO_COLOR": "1", **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_documented_session_runs_as_it_stands_there(served: Served, tmp_path: Path) -> None:
    """Breaks: a reader types the lines of the page, and gets an error."""
    assert len(documented()) >= 6
    assert "october-1 is true" in typed(documented(), tmp_path, served.data)
