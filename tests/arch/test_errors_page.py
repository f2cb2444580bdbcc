"""docs/errors.md says what the sources say."""

import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_of_errors_is_up_to_date_and_has_every_code() -> None:
    """Breaks: a person looks up a code that a script has met, and does not find it. Cure: just docs."""
    made = subprocess.run(
        [sys.executable, DOCS / "errors_page.py"], capture_output=True, text=True, check=True
    )
    assert made.stdout == (DOCS / "errors.md").read_text(), "write it anew: just docs"
    assert made.stdout.count("\n| `") > 200
