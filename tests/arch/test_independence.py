"""The second reader and writer of the format share no line with the program: so they can prove it wrong."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCES = sorted((Path(__file__).parents[1] / "independent").glob("**/*.py"))
OWN = {path.stem for path in SOURCES}
OTHERS = {"blake3", "brotli", "cryptography", "lz4", "pytest", "rfc8785", "zstandard"}
LOADERS = {"ctypes", "imp", "importlib", "multiprocessing", "pkgutil", "runpy"}
ALLOWED = OWN | OTHERS | sys.stdlib_module_names - LOADERS
BUILT_IN = {"__import__", "compile", "eval", "exec"}
PROGRAM = re.compile(r"\b(handlers|infra|schemas|streams)\b|^lucid$")
"""In a string that is no docstring: what another process, or a loader, would be told to run."""


def borrowed(source: str) -> Iterator[str]:
    """Every way in which a source could use something that is neither its own, nor Python's, nor a peer's."""
    tree = ast.parse(source)
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        match node:
            case ast.Import(names):
                yield from {alias.name for alias in names if alias.name.split(".")[0] not in ALLOWED}
            case ast.ImportFrom(module, _, level) if level or str(module).split(".")[0] not in ALLOWED:
                yield f"{'.' * level}{module}"
            case ast.Name(name) if name in BUILT_IN:
                yield name
            case ast.Constant(str(text)) if id(node) not in told and PROGRAM.search(text):
                yield text


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_the_independent_reader_and_writer_use_nothing_of_ours(path: Path) -> None:
    """Breaks: one mistake of ours is in both readers, and they agree on it."""
    assert list(borrowed(path.read_text())) == []


@pytest.mark.parametrize(
    "source",
    [
        "import handlers.crypto.primitives",
        "def late():\n    from schemas.format.jcs import dump",
        "from . import reader",
        "import evidence_case",
        "import importlib.util",
        "exec(code)",
        "__import__(name)",
        "subprocess.run([sys.executable, '-m', 'streams.cli.main'])",
        "subprocess.run(['lucid', 'verify'])",
        "sys.path.insert(0, str(ROOT / 'handlers'))",
    ],
)
def test_whatever_would_borrow_is_found(source: str) -> None:
    """Breaks: a reader that borrows passes for an independent one."""
    assert len(list(borrowed(source))) == 1


def test_the_readers_are_there() -> None:
    """Breaks: nothing is looked at, so nothing is found."""
    assert {"reader", "writer", "test_reader", "conftest"} <= OWN
