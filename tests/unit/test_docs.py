"""What the program and its documents say of each other."""

import ast
import re
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

from streams.cli.catalog import VERBS

ROOT = Path(__file__).parents[2]
DOCUMENTS = {path.name: path for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]}
RECORDS = [*(ROOT / "docs" / "decisions").glob("*.md")]
SOURCES = [
    path
    for folder in ("handlers", "infra", "schemas", "streams", "tests")
    for path in ROOT.glob(f"{folder}/**/*.py")
]

NAMED = re.compile(r"(?P<document>\w+\.md|RFC \d+|ISO/IEC \S+|draft-\S+)|§(?P<section>\d+)")
TOLD = re.compile(r"\blucid (?P<verb>[a-z]+)\b(?P<rest>(?: \[?[\w./-]+\]?)*)")
HEADING = re.compile(r"^## (\d+)\. ", re.MULTILINE)


def cited(path: Path) -> Iterator[tuple[str, str]]:
    """Document and section of each § on a line that names its document before it; a document cites itself."""
    for line in path.read_text().splitlines():
        document = path.name if path.suffix == ".md" else ""
        for match in NAMED.finditer(line):
            document = match["document"] or document
            if match["section"]:
                yield document, match["section"]


def test_a_cited_section_is_a_heading_of_its_document() -> None:
    """Breaks: who reads a rule's source in the code is sent to another rule, or to none."""
    headings = {name: set(HEADING.findall(path.read_text())) for name, path in DOCUMENTS.items()}
    citations = {
        (path.relative_to(ROOT), document, section)
        for path in [*SOURCES, *DOCUMENTS.values(), *RECORDS]
        for document, section in cited(path)
        if document.endswith(".md")
    }
    assert len(citations) > len(headings["format.md"])
    assert {one for one in citations if one[2] not in headings.get(one[1], set())} == set()


def strings(path: Path) -> Iterator[str]:
    """The strings of a module, with X for what an f-string fills in; of another file all of it."""
    if path.suffix != ".py":
        yield path.read_text()
        return
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.JoinedStr(values):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in values)
            case ast.Constant(str(text)):
                yield text


def test_a_command_that_is_told_can_be_typed() -> None:
    """Breaks: an error, or a document, sends people to a verb or an option that does not exist."""
    told = {
        (path.relative_to(ROOT), match[0], match["verb"], tuple(match["rest"].split()))
        for path in [*SOURCES, *DOCUMENTS.values(), *RECORDS, ROOT / "justfile"]
        if not path.is_relative_to(ROOT / "tests")
        for text in strings(path)
        for match in TOLD.finditer(text)
    }
    assert {verb for _, _, verb, _ in told} <= set(VERBS)
    wrong = [(path, text) for path, text, verb, rest in told if not can_be_typed(verb, rest)]
    assert wrong == []


def can_be_typed(verb: str, rest: Sequence[str]) -> bool:
    """Whether verb, subcommands and options exist. Capitals stand for what people fill in."""
    command: Any = getattr(import_module(f"streams.cli.verbs.{verb}"), verb)
    if isinstance(command, typer.Typer):
        command = typer.main.get_command(command)
        words = iter(rest)
        while hasattr(command, "commands"):
            word = next(words, "")
            if not word or word.isupper():
                return True
            if word not in command.commands:
                return False
            command = command.commands[word]
    else:
        app = typer.Typer()
        app.command()(command)
        command = typer.main.get_command(app)
    options = {"--help"} | {name for parameter in command.params for name in parameter.opts}
    return {word.strip("[]") for word in rest if word.strip("[]").startswith("--")} <= options
