"""A process that holds keys leaves none in a core dump, and still does its work."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import ctypes, sys
from pathlib import Path
from infra.blobs_disk import DiskBlobs
from infra.key_files_disk import DiskKeyFiles
from infra.undumpable import refuse_dumps
folder = Path(sys.argv[1])
files = DiskKeyFiles(folder / "sessions")
before = files.unproven()
assert refuse_dumps()
assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 0
assert files.unproven() == before
assert files.make(bytes(16), bytes(4096)) == bytes(4096)
assert DiskBlobs(folder / "blobs").put("a", b"x") == "created"
"""
"""prctl 3 is PR_GET_DUMPABLE."""


def test_a_process_that_cannot_be_dumped_still_makes_and_judges_files(tmp_path: Path) -> None:
    """Breaks: a core dump holds every key; or the same setting closes /proc to us, and nothing is proven."""
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
