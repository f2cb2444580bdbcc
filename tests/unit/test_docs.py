"""What the program and its documents say of each other."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = {path.name: path for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]}
SOURCES = [
    path
    for folder in ("handlers", "infra", "schemas", "streams", "tests")
    for path in ROOT.glob(f"{folder}/**/*.py")
]

NAMED = re.compile(r"(?P<document>\w+\.md|RFC \d+|ISO/IEC \S+|draft-\S+)|§(?P<section>\d+)")
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
        for path in [*SOURCES, *DOCUMENTS.values()]
        for document, section in cited(path)
        if document.endswith(".md")
    }
    assert len(citations) > len(headings["format.md"])
    assert {one for one in citations if one[2] not in headings.get(one[1], set())} == set()
