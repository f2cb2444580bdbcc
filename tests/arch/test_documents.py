"""Every path and link in the documents leads somewhere."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
PATH = re.compile(r"(?<![\w./<>-])((?:schemas|handlers|infra|streams|tests|docs)/[\w./-]*[\w/])")
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([\w-]+))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as a web page of it has them."""
    plain = (re.sub(r"[^\w\s-]", "", heading.lower()) for heading in HEADING.findall(path.read_text()))
    return {heading.strip().replace(" ", "-") for heading in plain}


def broken_links(page: Path) -> Iterator[str]:
    for target, anchor in LINK.findall(page.read_text()):
        if "://" in target:
            continue
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            yield f"{target}#{anchor}"


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_and_link_of_a_document_leads_somewhere(page: Path) -> None:
    """Breaks: a reader is sent to a file that has moved, and searches the whole house."""
    missing = {path for path in PATH.findall(page.read_text()) if not (ROOT / path).exists()}
    assert (missing, [*broken_links(page)]) == (set(), [])


def test_decisions_are_numbered_without_a_hole() -> None:
    """Breaks: two decisions have one number, or one was deleted instead of replaced."""
    numbers = [int(path.name.split("-")[0]) for path in sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))
    listed = LINK.findall((ROOT / "docs/decisions/README.md").read_text())
    assert {path.name for path in (ROOT / "docs/decisions").glob("[0-9]*.md")} <= {name for name, _ in listed}


def test_every_room_is_on_the_map_and_streams_in_the_order_of_imports() -> None:
    """Breaks: a room is added and nobody finds it, or its neighbours on the map may not be imported."""
    text = (ROOT / "docs/design.md").read_text()
    layers = re.split(r"^\| \*\*(\w+)/\*\*", text, flags=re.MULTILINE)
    rows = zip(layers[1::2], layers[2::2], strict=True)
    named = {f"{layer}/{room}" for layer, text in rows for room in re.findall(r"`(\w+)/`", text)}
    signs = (path.parent for layer in layers[1::2] for path in (ROOT / layer).glob("*/__init__.py"))
    assert {str(room.relative_to(ROOT)) for room in signs} <= named
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    order = next(contract["layers"] for contract in contracts if contract.get("containers") == ["streams"])
    assert re.findall(r"^\| `(\w+)/`", layers[layers.index("streams") + 1], flags=re.MULTILINE) == order


def test_the_map_and_the_sign_of_a_room_name_the_same_first_file() -> None:
    """Breaks: the map sends a reader to one file, the door to another."""
    text = (ROOT / "docs/design.md").read_text()
    for path in re.findall(r"^\| `\w+/` \|.*\| `([\w/]+\.py)` \|$", text, flags=re.MULTILINE):
        sign = ((ROOT / path).parent / "__init__.py").read_text()
        first = re.search(r"Begin with\s(\w+\.py)", sign)
        assert (first and first[1]) == Path(path).name, path
