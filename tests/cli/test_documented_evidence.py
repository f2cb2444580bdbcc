"""The worked example of docs/format.md, byte for byte, is true evidence to the program of every later day."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from streams.cli.main import main

INDEPENDENT = Path(__file__).parent.parent / "independent"


@pytest.fixture
def documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The document's blocks, put into files; what they were made of; the root's fingerprint."""
    monkeypatch.syspath_prepend(str(INDEPENDENT))
    examples, crypto = importlib.import_module("format_examples"), importlib.import_module("reader_crypto")
    blocks = examples.read_blocks(examples.DOCUMENT.read_text())
    examples.write_files(blocks, tmp_path)
    monkeypatch.chdir(tmp_path)
    return SimpleNamespace(plain=examples.PLAIN, root=crypto.fingerprint(blocks["root-key"]))


def test_what_was_documented_once_is_verified_and_opened_for_ever(documented: SimpleNamespace) -> None:
    """Breaks: a manifest, a trust file, a key file or a tombstone of today cannot be read tomorrow."""
    told = ("--trust", "trust.json", "--root", documented.root, "--strict")
    assert main(["verify", "./evidence", *told]) == 0
    assert main(["verify", "tombstone.json", *told]) == 0
    assert main(["export", "./evidence", "--out", "out"]) == 0
    assert Path("out").read_bytes() == documented.plain


def test_one_changed_bit_of_it_is_seen(documented: SimpleNamespace) -> None:
    """Breaks: the test above proves nothing."""
    for name in ("evidence/chunks/0000000000", "evidence/history.ndjson", "evidence/manifests/1.dsse.json"):
        raw = Path(name).read_bytes()
        Path(name).write_bytes(bytes([raw[0] ^ 1]) + raw[1:])
        assert main(["verify", "./evidence", "--trust", "trust.json", "--root", documented.root]) == 3, name
        Path(name).write_bytes(raw)
