"""What a script relies on in an error: its code, and the exit status that goes with it."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from schemas import errors
from schemas.errors import OUTCOMES

ROOT = Path(__file__).parents[2]
ROOMS = ("schemas", "handlers", "infra", "streams")
STATUS = {kind.__name__: OUTCOMES[kind].exit_code for kind in OUTCOMES}


def raised(source: str) -> Iterator[tuple[str, str]]:
    """Kind and code of each error that a source makes."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            kind = getattr(node.func, "id", getattr(node.func, "attr", ""))
            for word in node.keywords:
                if word.arg == "code" and isinstance(word.value, ast.Constant) and kind in STATUS:
                    yield kind, word.value.value


def test_one_code_has_one_exit_status() -> None:
    """Breaks: a script that reads a code cannot tell whether to try again, or whether its call was wrong."""
    assert set(STATUS) <= set(dir(errors))
    found = defaultdict(set)
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            for kind, code in raised(path.read_text()):
                found[code].add(STATUS[kind])
    assert len(found) > 150
    assert {code: several for code, several in found.items() if len(several) > 1} == {}
