"""Makes the independent modules importable by their bare names, and gives tests a copy to damage."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from copy_on_disk import Evidence
from writer_host import Plan


@pytest.fixture
def evidence(tmp_path: Path) -> Callable[[Plan], Evidence]:
    """Write the copy of a plan below a fresh folder, once per call."""
    count = iter(range(1000))

    def write(plan: Plan) -> Evidence:
        folder = tmp_path / f"copy-{next(count)}"
        folder.mkdir()
        return Evidence(plan, folder)

    return write
