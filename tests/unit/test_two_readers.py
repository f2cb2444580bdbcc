"""The independent reader, which shares no code with ours, reads our frozen vectors and refuses the same."""

import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from schemas.format.digest import ZERO, h
from tests.support.evidence.format_samples import COUNTER, DEK, HOST_PUBLIC, SIGNER_PUBLIC, UID

TESTS = Path(__file__).parent.parent


def _vectors(name: str) -> Any:
    return json.loads((TESTS / "vectors" / f"{name}.json").read_text())


def _raw(text: str) -> bytes:
    return bytes.fromhex(text)


@pytest.fixture(scope="module")
def reader() -> SimpleNamespace:
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(TESTS / "independent"))
        return SimpleNamespace(
            **{
                name: importlib.import_module(f"reader_{name}")
                for name in ("bytes", "crypto", "shapes", "keyed")
            }
        )


def test_both_derive_the_same_keys_and_names(reader: SimpleNamespace) -> None:
    """Breaks: nobody else could open what we sealed."""
    v = _vectors("keys")
    assert reader.crypto.IntakeKey(DEK).public.hex() == v["intake_public"]
    assert reader.crypto.open_key_file(_raw(v["master"]), UID, _raw(v["key_file"])) == DEK
    assert reader.crypto.session_uid(HOST_PUBLIC, COUNTER).hex() == v["uid"]
    intake = h(_raw(v["intake_public"]))
    made = [reader.crypto.genesis(UID, track, HOST_PUBLIC, COUNTER, ZERO, intake).hex() for track in (0, 1)]
    assert made == v["genesis"]


def test_both_read_the_same_fragments(reader: SimpleNamespace) -> None:
    """Breaks: nobody else could check a recording."""
    v, intake, part_keys = _vectors("fragments"), reader.crypto.IntakeKey(DEK), []
    for seq, each in enumerate(v["main"]):
        made = reader.bytes.read_fragment(_raw(each["whole"]))
        assert made.head.hex() == each["head"]
        assert reader.crypto.signature_is_good(
            HOST_PUBLIC, b"lucid v1 fragment\0" + made.head, made.signature
        )
        if made.header.kind == 1:
            settings, enc, ciphertext = reader.bytes.split_part_body(made.body)
            part_keys.append(intake.open(enc, ciphertext, b"lucid v1 part" + made.raw_header + settings))
        elif made.header.kind == 2:
            plain = _raw(v["data"][str(seq)])
            assert reader.crypto.seal_data(part_keys[-1], made.raw_header, 0, seq, plain) == made.body
        elif made.header.kind != 3:
            reader.shapes.read_body(made.header.kind, made.body)
    assert [key.hex() for key in part_keys] == v["part_keys"]
    end = reader.bytes.read_fragment(_raw(v["end"]["whole"]))
    assert reader.crypto.signature_is_good(SIGNER_PUBLIC, b"lucid v1 end\0" + end.head, end.signature)


def test_both_open_the_same_chunks_and_grow_the_same_tree(reader: SimpleNamespace) -> None:
    """Breaks: nobody else could watch or verify a recording."""
    for v in _vectors("chunks"):
        assert reader.keyed.open_chunk(DEK, _raw(v["sealed"])).hex() == v["plain"]
    v = _vectors("merkle")
    leaves = [_raw(leaf) for leaf in v["leaves"]]
    assert [reader.crypto.merkle_root(leaves[:size]).hex() for size in range(10)] == v["roots"]


def test_both_read_the_same_entries_rows_and_envelopes(reader: SimpleNamespace) -> None:
    """Breaks: nobody else could recompute a root, or check a signature."""
    v = _vectors("index")
    for each in v["entries"]:
        assert reader.bytes.pack_entry(each["fields"]).hex() == each["packed"]
        assert reader.bytes.leaf(each["fields"]).hex() == each["leaf"]
    found = list(reader.bytes.split_rows(_raw(v["rows"])))
    assert [kind for kind, _ in found] == [1, 2, 2, 2, 3, 4]
    assert b"".join(reader.bytes.pack_row(*row) for row in found).hex() == v["rows"]
    assert all(reader.bytes.read_fragment_row(content).pack() == content for _, content in found[1:4])
    v = _vectors("dsse")
    value = reader.shapes.open_envelope(
        _raw(v["envelope"]), v["type"], lambda *_: None, lambda _: v["public"], "x"
    )
    assert reader.shapes.jcs(value).hex() == v["payload"]


def test_both_refuse_the_same(reader: SimpleNamespace) -> None:
    """Breaks: two readers would tell two truths."""
    read = {
        "fragment": reader.bytes.read_fragment,
        "chunk": lambda raw: reader.keyed.open_chunk(DEK, raw),
        "json": lambda raw: reader.shapes.parse_canonical(raw, "x"),
    }
    taken = []
    for number, v in enumerate(_vectors("refusals")):
        try:
            read[v["of"]](_raw(v["bytes"]))
        except reader.crypto.Bad:
            continue
        taken.append((number, v["of"], v["code"]))
    assert taken == []
