"""The house keeps its rooms: sizes, signs on doors, and English that a stranger can act on."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = ("schemas", "handlers", "infra", "streams")
MODULES = {
    str(path.relative_to(ROOT)): path.read_text() for top in LAYERS for path in (ROOT / top).rglob("*.py")
}
TREES = {name: ast.parse(text) for name, text in MODULES.items()}
LOOSE = {"schemas": 4, "handlers": 0, "infra": 0, "streams": 0}
"""Modules that may stand outside of a room."""
MOST_WORDS = 25
FREE_SENTENCES, LONG_SENTENCES = 900, 60
"""Of docstrings and comments in all modules. A bound may fall, and never rises."""
FREE = re.compile(r"\b(what|who|whom|whoever|whatever|whose|that which)\b", re.IGNORECASE)
SENTENCE_END = re.compile(r"(?<=[.:;!?])\s+|\n\s*\n|\n\s*(?:\d+\.|-)\s")
WORD = re.compile(r"[\w'’`./-]+")


def texts(name: str) -> Iterator[str]:
    """The docstrings and comments of a module."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""
    for token in tokenize.generate_tokens(io.StringIO(MODULES[name]).readline):
        if token.type == tokenize.COMMENT:
            yield token.string.lstrip("# ")


def sentences() -> Iterator[tuple[str, str]]:
    """Every sentence, and the module that says it."""
    for name in MODULES:
        for text in texts(name):
            for sentence in SENTENCE_END.split(text):
                yield name, sentence


@pytest.mark.parametrize("layer", LAYERS)
def test_every_module_has_a_room(layer: str) -> None:
    """Breaks: a stranger who looks for a behaviour reads dozens of file names."""
    loose = [path.name for path in (ROOT / layer).glob("*.py") if path.name != "__init__.py"]
    assert len(loose) <= LOOSE[layer], loose


def test_sentences_can_be_read_once() -> None:
    """Breaks: who reads at three in the morning, in a second language, has to decode sentences."""
    free = [(name, text) for name, text in sentences() if FREE.search(text)]
    long = [(name, text) for name, text in sentences() if len(WORD.findall(text)) > MOST_WORDS]
    print(f"{len(free)} sentences with a free what or who, {len(long)} over {MOST_WORDS} words")
    assert len(free) <= FREE_SENTENCES, free
    assert len(long) <= LONG_SENTENCES, long
