"""The frozen vectors of tests/vectors/make.py: what was written once is read, and made again, for ever."""

import json
from pathlib import Path
from typing import Any

import pytest

from handlers.crypto import details, keys
from handlers.crypto.key_file import build_key_file, open_key_file
from handlers.format import chunk, fragment, merkle_tree
from handlers.format.compression import decompress
from schemas.errors import LucidError
from schemas.events.details import Details
from schemas.format import dsse
from schemas.format.chunk_header import Codec, Suite
from schemas.format.digest import ZERO
from schemas.format.fragment import FinalBody, Kind, genesis, parse, session_uid
from schemas.format.index import Entry, pack_row, rows
from schemas.format.jcs import strict_loads
from tests.support.evidence.format_samples import (
    COUNTER,
    DEK,
    DETAILS,
    HOST,
    HOST_PUBLIC,
    PASSWORD,
    SIGNER,
    SIGNER_PUBLIC,
    UID,
)


def _vectors(name: str) -> Any:
    return json.loads((Path(__file__).parent.parent / "vectors" / f"{name}.json").read_text())


def _raw(text: str) -> bytes:
    return bytes.fromhex(text)


def test_keys_are_derived_as_ever() -> None:
    """Breaks: every recording already made."""
    v = _vectors("keys")
    session = keys.SessionKeys(_raw(v["dek"]))
    assert session.dek_id.hex() == v["dek_id"]
    assert session.intake_public.hex() == v["intake_public"]
    master, nonce, whole = _raw(v["master"]), _raw(v["nonce"]), _raw(v["key_file"])
    made = build_key_file(master, v["master_version"], UID, DEK, nonce=nonce, padding=whole[116:])
    assert made == whole
    assert open_key_file({v["master_version"]: master}, UID, whole) == DEK


def test_sessions_are_named_as_ever() -> None:
    """Breaks: every uid and every genesis."""
    v = _vectors("keys")
    intake = _raw(v["intake_public"])
    assert HOST_PUBLIC.hex() == v["host_public"]
    assert session_uid(HOST_PUBLIC, COUNTER).hex() == v["uid"]
    made = [genesis(UID, track, HOST_PUBLIC, COUNTER, ZERO, intake).hex() for track in (0, 1)]
    assert made == v["genesis"]
    assert genesis(UID, 0, HOST_PUBLIC, COUNTER, _raw(made[0]), intake).hex() == v["next_genesis"]


def test_fragments_read_verify_and_open_as_ever() -> None:
    """Breaks: every fragment that lies in a stream or a spool."""
    v = _vectors("fragments")
    opener = keys.SessionKeys(DEK)
    prev, part_keys = _vectors("keys")["genesis"][0], []
    for seq, each in enumerate(v["main"]):
        made = parse(_raw(each["whole"]))
        assert (made.head.hex(), made.header.prev_head.hex()) == (each["head"], prev)
        assert made.header.seq == seq
        assert made.header.pack() == made.raw_header
        assert fragment.verify_fragment(HOST_PUBLIC, made)
        assert HOST.sign(b"lucid v1 fragment\0" + made.head) == made.signature
        if made.header.kind is Kind.PART:
            part_keys.append(opener.open_part_key(made).hex())
        if made.header.kind is Kind.DATA:
            plain = _raw(v["data"][str(seq)])
            assert fragment.open_data(_raw(part_keys[-1]), made) == plain
            assert fragment.reseal_digest(_raw(part_keys[-1]), made.header, plain) == made.body_digest
        prev = each["head"]
    assert part_keys == v["part_keys"]
    assert [parse(_raw(each["whole"])).header.kind for each in v["main"]] == [1, 2, 3, 4, 5, 6, 1, 2, 7]
    tails = FinalBody.parse(parse(_raw(v["main"][8]["whole"])).body).tracks
    assert [tail.head.hex() for tail in tails] == [v["main"][7]["head"], v["events"][0]["head"]]


def test_an_end_is_made_as_ever() -> None:
    """Breaks: sessions whose host never came back."""
    v = _vectors("fragments")
    final = FinalBody.parse(parse(_raw(v["main"][8]["whole"])).body)
    end = parse(_raw(v["end"]["whole"]))
    made = fragment.end_fragment(UID, "host_lost", "silent", final.tracks, end.header.time_us, SIGNER)
    assert made.hex() == v["end"]["whole"]
    assert fragment.verify_fragment(SIGNER_PUBLIC, end)


@pytest.mark.parametrize("number", range(10))
def test_chunks_are_sealed_and_opened_as_ever(number: int) -> None:
    """Breaks: every chunk already stored, and every replay of one."""
    v = _vectors("chunks")[number]
    plain, payload, sealed = (_raw(v[name]) for name in ("plain", "payload", "sealed"))
    fields = chunk.ChunkFields(UID, 5, 0, 1, 4000, Codec(v["codec"]), len(plain))
    assert chunk.seal_chunk(Suite(v["suite"]), DEK, fields, payload) == sealed
    assert chunk.open_plain(DEK, sealed) == plain
    assert chunk.open_with_secret(_raw(v["cs"]), sealed).payload == payload
    assert decompress(Codec(v["codec"]), payload, len(plain)) == plain
    assert [key.hex() for key in keys.seal_keys(_raw(v["cs"]))] == v["seal_keys"]


def test_entries_and_rows_are_packed_as_ever() -> None:
    """Breaks: every leaf already signed, and every index already sealed."""
    v = _vectors("index")
    for each in v["entries"]:
        entry = Entry.parse(_raw(each["packed"]))
        assert {name: getattr(entry, name) for name in each["fields"]} == {
            name: _raw(value) if isinstance(value, str) else value for name, value in each["fields"].items()
        }
        assert (entry.pack().hex(), merkle_tree.leaf(entry.pack()).hex()) == (each["packed"], each["leaf"])
    assert b"".join(pack_row(row) for row in rows(_raw(v["rows"]))).hex() == v["rows"]


def test_trees_and_proofs_are_made_as_ever() -> None:
    """Breaks: every root already signed, and every proof handed out."""
    v = _vectors("merkle")
    leaves = [_raw(leaf) for leaf in v["leaves"]]
    assert [merkle_tree.root(leaves[:size]).hex() for size in range(10)] == v["roots"]
    assert [merkle_tree.Tree.parse(_raw(tree)).root.hex() for tree in v["trees"]] == v["roots"]
    for index, packed in enumerate(v["inclusion"]):
        assert merkle_tree.inclusion_proof(leaves, index).pack().hex() == packed
        proof = merkle_tree.InclusionProof.parse(_raw(packed))
        assert merkle_tree.verify_inclusion(proof, leaves[index], _raw(v["roots"][9]))
    for size, packed in enumerate(v["consistency"]):
        assert merkle_tree.consistency_proof(leaves, size).pack().hex() == packed


def test_an_envelope_is_made_as_ever() -> None:
    """Breaks: every manifest already signed."""
    v = _vectors("dsse")
    payload = _raw(v["payload"])
    assert dsse.build(payload, v["type"], SIGNER.sign, SIGNER_PUBLIC).hex() == v["envelope"]
    envelope = dsse.parse(_raw(v["envelope"]), v["type"])
    assert (envelope.payload, envelope.keyid) == (payload, dsse.fingerprint(_raw(v["public"])))
    assert fragment.verify_signature(_raw(v["public"]), envelope.signed, envelope.sig)


def test_personal_fields_are_sealed_and_opened_as_ever() -> None:
    """Breaks: the names, owners and tags of every session already in a log."""
    v = _vectors("details")
    written = details.open_details(DEK, UID, 3, _raw(v["details"]))
    assert written == DETAILS == Details.model_validate(v["members"])
    assert details.open_details(DEK, UID, 1, _raw(v["none"])) == Details()
    assert details.open_password(DEK, UID, 3, _raw(v["password"])) == PASSWORD
    assert details.seal_details(DEK, UID, 3, DETAILS).hex() == v["details"]
    assert details.seal_password(DEK, UID, 3, PASSWORD).hex() == v["password"]


READERS = {
    "fragment": parse,
    "chunk": lambda raw: chunk.open_plain(DEK, raw),
    "json": strict_loads,
}


@pytest.mark.parametrize("number", range(len(_vectors("refusals"))))
def test_what_was_refused_is_refused_as_ever(number: int) -> None:
    """Breaks: two readers would tell two truths."""
    v = _vectors("refusals")[number]
    with pytest.raises(LucidError) as caught:
        READERS[v["of"]](_raw(v["bytes"]))
    assert caught.value.code == v["code"]
