"""A process that holds keys leaves none in a core dump, and still does its work."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import ctypes, sys
from pathlib import Path
from infra.blobs.disk import DiskBlobs
from infra.keys.session_keys import DiskKeyFiles
from infra.processes.memory import refuse_dumps
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


ASKS = """
import ctypes, sys
from streams.roles.drivers import Installation
here = Installation.here({"LUCID_DATA": sys.argv[1]})
assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 1
getattr(here, sys.argv[2])
assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 0
"""


@pytest.mark.parametrize("what", ["keyring", "key_files", "signers"])
def test_whatever_asks_for_keys_cannot_be_dumped(tmp_path: Path, what: str) -> None:
    """Breaks: an export, a copy of keys/ or the supervisor crashes, and its core dump holds the keys."""
    command = [sys.executable, "-c", ASKS, str(tmp_path), what]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr


def test_a_process_that_cannot_be_dumped_still_makes_and_judges_files(tmp_path: Path) -> None:
    """Breaks: a core dump holds every key; or the same setting closes /proc to us, and nothing is proven."""
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
