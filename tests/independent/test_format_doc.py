"""The worked examples of docs/format.md are what the independent implementation computes."""

from __future__ import annotations

from pathlib import Path

import format_examples
import pytest
import reader
import reader_shapes as shapes
from reader_bytes import (
    CHUNK_HEADER,
    ENTRY_FIELDS,
    HEADER,
    MAX_CLEAR_BODY,
    MAX_FRAGMENT,
    MAX_INDEX_PLAIN,
    MAX_PART_SETTINGS,
    MAX_PLAIN,
    ChunkHeader,
    Header,
)
from reader_crypto import fingerprint, h, open_key_file
from reader_keyed import MAX_CLEAR, MAX_FRAGMENTS


@pytest.fixture(scope="module")
def document() -> str:
    return format_examples.DOCUMENT.read_text()


@pytest.fixture(scope="module")
def blocks(document: str) -> dict[str, bytes]:
    return format_examples.read_blocks(document)


def test_every_worked_example_is_what_the_rules_give(blocks: dict[str, bytes]) -> None:
    """Breaks: a stranger writes a verifier from examples that are wrong."""
    computed = format_examples.compute(blocks["part-fragment"][-1232:-64])
    assert set(blocks) == set(computed)
    for name, value in computed.items():
        assert blocks[name] == value, name


def test_the_example_is_a_whole_evidence_copy(blocks: dict[str, bytes], tmp_path: Path) -> None:
    """Breaks: the documented bytes, put into files, do not verify and decrypt."""
    format_examples.write_files(blocks, tmp_path)
    folder, out = tmp_path / "evidence", tmp_path / "out"
    command = [str(folder), "--trust", str(tmp_path / "trust.json"), "--out", str(out), "--strict"]
    assert reader.main([*command, "--root", fingerprint(blocks["root-key"])]) == 0
    assert out.read_bytes() == format_examples.PLAIN


def test_the_documented_key_file_and_tombstone_open(blocks: dict[str, bytes]) -> None:
    """Breaks: a master key does not open what the document says it wraps."""
    whole = blocks["key-file-start"] + bytes(number % 251 for number in range(3980))
    assert h(whole) == blocks["key-file-digest"]
    opened = open_key_file(blocks["master"], blocks["uid"], whole)
    assert whole[28:44] == blocks["dek-id"]
    assert opened == blocks["dek"]
    tombstone = shapes.open_envelope(
        blocks["tombstone-json"],
        shapes.TOMBSTONE_TYPE,
        shapes.TOMBSTONE,
        lambda _: blocks["signer-key"].hex(),
        "tombstone",
    )
    assert tombstone["manifest"] == blocks["manifest-digest"].hex()


def test_the_byte_tables_are_those_of_the_reader(document: str) -> None:
    """Breaks: a field stands at another offset than the table says."""
    tables = _tables(document)
    lengths = {"Fragment header": HEADER, "Chunk header": CHUNK_HEADER, "Entry": 158}
    for name, total in lengths.items():
        rows = tables[name]
        end = 0
        for offset, size, _ in rows:
            assert offset == end, (name, offset)
            end = offset + size
        assert end == total
    entry_names = [field.split()[0].strip("`") for _, _, field in tables["Entry"]]
    assert entry_names == list(ENTRY_FIELDS)
    for name, packed in (
        ("Fragment header", Header(7, 0, 0, 3, b"u" * 16, 5, 6, 7, b"p" * 32).pack()),
        (
            "Chunk header",
            ChunkHeader(1, 2, 1, 4, b"u" * 16, 5, 6, 8, 8, b"d" * 16, b"n" * 24, b"c" * 32).pack(),
        ),
    ):
        fields = {field.split()[0].strip("`"): packed[o : o + s] for o, s, field in tables[name]}
        assert fields["uid"] == b"u" * 16
        assert fields["part"] == bytes([3 if name.startswith("F") else 4, 0, 0, 0])


def _tables(document: str) -> dict[str, list[tuple[int, int, str]]]:
    """Return offset, size and field of each table that follows a line `**Name** …`."""
    tables: dict[str, list[tuple[int, int, str]]] = {}
    name = ""
    for line in document.splitlines():
        if line.startswith("**"):
            name = line[2:].split("**")[0]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) >= 3 and cells[0].isdigit() and cells[1].isdigit():
            tables.setdefault(name, []).append((int(cells[0]), int(cells[1]), cells[2]))
    return tables


def test_every_limit_of_the_reader_is_in_the_document(document: str) -> None:
    """Breaks: two implementations refuse different things."""
    limits = {
        MAX_FRAGMENT, MAX_CLEAR_BODY, MAX_PART_SETTINGS, MAX_PLAIN, MAX_INDEX_PLAIN, MAX_FRAGMENTS, MAX_CLEAR,
        shapes.MAX_HISTORY_LINE, shapes.MAX_METADATA, shapes.MAX_ITEM,
        reader.MAX_MANIFEST, reader.MAX_HISTORY, reader.MAX_TRUST, reader.MAX_KEYS,
    }  # fmt: skip
    for limit in limits:
        assert f"{limit:,}" in document, limit
