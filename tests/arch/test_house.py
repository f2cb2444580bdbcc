"""The house keeps its rooms: sizes, signs on doors, and English that a stranger can act on."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import SHARDS

ROOT = Path(__file__).parents[2]
LAYERS = ("schemas", "handlers", "infra", "streams")
MODULES = {
    str(path.relative_to(ROOT)): path.read_text() for top in LAYERS for path in (ROOT / top).rglob("*.py")
}
TREES = {name: ast.parse(text) for name, text in MODULES.items()}
LOOSE = {"schemas": 5, "handlers": 0, "infra": 0, "streams": 0}
"""Modules that may stand outside of a room."""
MOST_LINES, MOST_PARAMETERS, MOST_WORDS = 300, 7, 25
BOUNDS = {"modules": (50, 20), "documents": (40, 6)}
"""Sentences with a free what or who, and sentences over MOST_WORDS. A bound may fall, and never rises."""
DOCUMENTS = [path for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
             if path.name not in ("errors.md", "settings.md", "format.md")]  # fmt: skip
"""Pages that people write; format.md is held to its own words."""
FREE = re.compile(r"\b(what|who|whom|whoever|whatever|whose|that which)\b", re.IGNORECASE)
SENTENCE_END = re.compile(r"(?<=[.:;!?])\s+|\n\s*\n|\n\s*(?:\d+\.|[-*#]+)\s")
WORD = re.compile(r"[\w'’`./-]+")
KNOWS_SHARDS = {
    *("schemas/subjects.py", "streams/event_store/recordings.py", "streams/event_store/topology.py"),
    "streams/bench/sessions.py",  # reads the number by itself: it also measures checkouts without shards
}
"""Every other module asks for the stream of a session."""
NAMELESS = {"utils", "common", "manager", "base", "helpers", "misc"}


def is_sign(name: str) -> bool:
    return name.endswith("/__init__.py")


def texts(name: str) -> Iterator[str]:
    """The docstrings and comments of a module."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""
    for token in tokenize.generate_tokens(io.StringIO(MODULES[name]).readline):
        if token.type == tokenize.COMMENT:
            yield token.string.lstrip("# ")


def prose(page: Path) -> Iterator[str]:
    """The text of a page without its code blocks; each cell of a table by itself."""
    text = re.sub(r"```.*?```|^    .*$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    lines = text.split("\n")
    yield "\n".join(line for line in lines if not line.startswith("|"))
    for line in lines:
        if line.startswith("|"):
            yield from line.split("|")


def sentences(kind: str) -> Iterator[tuple[str, str]]:
    """Every sentence of the modules or documents, and the file that says it."""
    if kind == "modules":
        found = ((name, text) for name in MODULES for text in texts(name))
    else:
        found = ((str(page.relative_to(ROOT)), text) for page in DOCUMENTS for text in prose(page))
    for name, text in found:
        for sentence in SENTENCE_END.split(text):
            yield name, sentence


@pytest.mark.parametrize("layer", LAYERS)
def test_every_module_has_a_room(layer: str) -> None:
    """Breaks: a stranger who looks for a behaviour reads dozens of file names."""
    loose = [path.name for path in (ROOT / layer).glob("*.py") if path.name != "__init__.py"]
    assert len(loose) <= LOOSE[layer], loose


def test_every_room_has_a_sign_on_its_door() -> None:
    """Breaks: a stranger cannot tell what a room is for, nor where to begin."""
    assert [name for name, tree in TREES.items() if is_sign(name) and not ast.get_docstring(tree)] == []


def test_a_module_says_first_what_it_is_and_never_what_it_owns() -> None:
    """Breaks: a reader decodes a phrase instead of reading what the module does."""
    first = {name: ast.get_docstring(tree) or "" for name, tree in TREES.items()}
    assert [name for name, text in first.items() if not text] == []
    assert [name for name, text in first.items() if text.startswith("Owns")] == []


def test_a_module_has_one_subject_and_a_name_of_its_own() -> None:
    """Breaks: a module grows until nobody reads it, or takes what belongs nowhere."""
    long = {name: text.count("\n") for name, text in MODULES.items() if text.count("\n") > MOST_LINES}
    assert long == {}
    assert [name for name in MODULES if NAMELESS & {Path(name).stem, *Path(name).parts}] == []


def test_a_function_outside_the_command_line_has_few_parameters() -> None:
    """Breaks: callers mix up arguments that belong together and have no name together."""
    many = []
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not name.startswith(
                "streams/cli/"
            ):
                names = [one.arg for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                if len([one for one in names if one not in ("self", "cls")]) > MOST_PARAMETERS:
                    many.append(f"{name}: {node.name}")
    assert many == []


@pytest.mark.parametrize("kind", BOUNDS)
def test_sentences_can_be_read_once(kind: str) -> None:
    """Breaks: who reads at three in the morning, in a second language, has to decode sentences."""
    free = [(name, text) for name, text in sentences(kind) if FREE.search(text)]
    long = [(name, text) for name, text in sentences(kind) if len(WORD.findall(text)) > MOST_WORDS]
    print(f"{kind}: {len(free)} sentences with a free what or who, {len(long)} over {MOST_WORDS} words")
    most_free, most_long = BOUNDS[kind]
    assert len(free) <= most_free, free
    assert len(long) <= most_long, long


def test_one_door_leads_to_recordings() -> None:
    """Breaks: a module reads the stream of shard 0, and finds nothing of most sessions."""
    names = {
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Name) and node.id == "RECORDINGS")
        or (isinstance(node, ast.Attribute) and node.attr == "RECORDINGS")
        or (isinstance(node, ast.Constant) and node.value == "RECORDINGS")
    }
    assert names == KNOWS_SHARDS


def test_a_number_of_shards_is_for_a_file_that_there_is() -> None:
    """Breaks: a renamed file of tests of kills loses its three numbers of recording streams, unseen."""
    there = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    assert SHARDS.keys() - there == set()
