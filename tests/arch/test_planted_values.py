"""Whether a log that holds a person's data or a secret of a test would be noticed."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support.kept_logs.log_search import PERSONAL, SECRET

TESTS = Path(__file__).parents[1]
ROOMS = ("acceptance", "api", "cli", "contract", "faults", "pipeline", "telemetry")
"""Whose tests run systems."""
PERSONAL_NAMES = ("owner", "username", "domain", "description", "--owner", "--description")
SECRET_NAMES = ("password", "passphrase", "ENCRYPTION_KEY", "JWT_SECRET_KEY", "encryption_key")
LEAST = 3
"""A shorter value would be found everywhere."""
NOT_KEPT = ("api/test_schema.py", "cli/test_every_wrong_value.py", "contract/test_views.py")
"""Their values are made by hypothesis, refused before anything runs, or reach no system."""


def named_values(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """Line, name and text of each member, argument and option that has a constant text."""
    for node in ast.walk(tree):
        pairs: list[tuple[ast.expr | None, ast.expr]] = []
        if isinstance(node, ast.Dict):
            pairs = list(zip(node.keys, node.values, strict=True))
        elif isinstance(node, ast.Call):
            pairs = [(ast.Constant(one.arg), one.value) for one in node.keywords if one.arg]
        elif isinstance(node, ast.Tuple | ast.List):
            pairs = [pair for pair in zip(node.elts, node.elts[1:], strict=False) if _is_option(pair[0])]
        for name, value in pairs:
            if (
                isinstance(name, ast.Constant)
                and isinstance(value, ast.Constant)
                and isinstance(value.value, str)
            ):
                yield value.lineno, str(name.value), value.value


def _is_option(word: ast.expr) -> bool:
    return isinstance(word, ast.Constant) and str(word.value).startswith("--")


def unmarked(name: str, text: str) -> bool:
    if name in SECRET_NAMES:
        return SECRET.decode() not in text.lower()
    return name in PERSONAL_NAMES and PERSONAL.decode() not in text.lower()


def test_every_personal_value_and_secret_of_a_test_can_be_found_in_a_log() -> None:
    """Breaks: a test gives a system a name or a password that nobody would notice in its log."""
    found = []
    for room in ROOMS:
        for path in sorted((TESTS / room).glob("*.py")):
            place = path.relative_to(TESTS).as_posix()
            if place in NOT_KEPT:
                continue
            for line, name, text in named_values(ast.parse(path.read_text())):
                if len(text) >= LEAST and unmarked(name, text):
                    found.append(f"tests/{place}:{line}: {name} {text!r}")
    assert found == []
