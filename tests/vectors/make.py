"""Writes the frozen vectors of the format, once: a file that is there is never written again.

    python -m tests.vectors.make

A new version of the format gets new files; the old ones stay readable for ever. Events that are
written in a new way are added to those that are kept.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from handlers.crypto import details, keys
from handlers.crypto.key_file import PADDING_BYTES, build_key_file
from handlers.format import fragment, merkle_tree
from handlers.format.chunk import ChunkFields, seal_chunk
from handlers.format.compression import compress
from schemas.events.details import Details
from schemas.format import dsse
from schemas.format.chunk_header import INDEX_TRACK, ChunkHeader, Codec, Suite
from schemas.format.digest import ZERO, h
from schemas.format.fragment import genesis, parse
from schemas.format.index import Entry, FragmentRow, KeyFrameRow, MetadataRow, pack_row
from schemas.format.jcs import jcs
from tests.support.evidence import format_samples as s
from tests.support.evidence.event_samples import samples
from tests.support.servers.list_requests import requests

HERE = Path(__file__).parent
MASTER = bytes(range(128, 160))
PADDING = bytes(number % 251 for number in range(PADDING_BYTES))
PLAINS = (b"first picture", b"second")


def main() -> None:
    track = _fragments()
    _freeze("keys", _keys())
    _freeze("fragments", track)
    sealed = _chunks()
    _freeze("chunks", sealed)
    _freeze("index", _index(track, sealed))
    _freeze("merkle", _merkle())
    _freeze("dsse", _dsse())
    _freeze("details", _details())
    _freeze("refusals", _refusals(track, sealed))
    _keep("events", samples())
    _freeze("list_requests", requests(300))


def _freeze(name: str, value: object) -> None:
    path = HERE / f"{name}.json"
    if not path.exists():
        path.write_text(json.dumps(_hex(value), indent=1, ensure_ascii=True) + "\n")


def _keep(name: str, values: list[Any]) -> None:
    path = HERE / f"{name}.json"
    kept = json.loads(path.read_text()) if path.exists() else []
    kept += [value for value in values if value not in kept]
    path.write_text(json.dumps(kept, indent=1, ensure_ascii=True) + "\n")


def _hex(value: Any) -> Any:
    match value:
        case bytes() | bytearray():
            return value.hex()
        case dict():
            return {name: _hex(member) for name, member in value.items()}
        case list() | tuple():
            return [_hex(item) for item in value]
    return value


def _keys() -> dict[str, Any]:
    nonce = bytes(range(24))
    return {
        "dek": s.DEK,
        "dek_id": s.KEYS.dek_id,
        "intake_public": s.KEYS.intake_public,
        "master": MASTER,
        "master_version": 3,
        "nonce": nonce,
        "key_file": build_key_file(MASTER, 3, s.UID, s.DEK, nonce=nonce, padding=PADDING),
        "host_seed": bytes(range(32)),
        "host_public": s.HOST_PUBLIC,
        "counter": s.COUNTER,
        "uid": s.UID,
        "genesis": [
            genesis(s.UID, track, s.HOST_PUBLIC, s.COUNTER, ZERO, s.KEYS.intake_public) for track in (0, 1)
        ],
        "next_genesis": genesis(s.UID, 0, s.HOST_PUBLIC, s.COUNTER, s.GENESIS, s.KEYS.intake_public),
    }


def _fragments() -> dict[str, Any]:
    host, events = s.sealer(), s.sealer(1)
    side = [events.part(s.SETTINGS, s.START_US)]
    main = [
        host.part(s.SETTINGS, s.START_US),
        host.data(PLAINS[0], s.START_US + 1, key_frame=True),
        host.tick(s.START_US + 2),
        host.gap(s.START_US + 2, s.START_US + 3, 5, "spool_full", s.START_US + 3),
        host.pause("asked", s.START_US + 4),
        host.resume("asked", s.START_US + 5),
        host.part(s.SETTINGS, s.START_US + 6),
        host.data(PLAINS[1], s.START_US + 7),
    ]
    tails = [host.tail(), events.tail()]
    main.append(host.final([events.tail()], s.START_US + 8))
    end = fragment.end_fragment(s.UID, "host_lost", "silent", tails, s.START_US + 9, s.SIGNER)
    return {
        "main": [{"whole": whole, "head": parse(whole).head} for whole in main],
        "events": [{"whole": whole, "head": parse(whole).head} for whole in side],
        "part_keys": [s.KEYS.open_part_key(parse(main[at])) for at in (0, 6)],
        "data": {"1": PLAINS[0], "7": PLAINS[1]},
        "signer_public": s.SIGNER_PUBLIC,
        "end": {"whole": end, "head": parse(end).head},
    }


def _chunks() -> list[dict[str, Any]]:
    made = []
    for suite in Suite:
        for codec in Codec:
            plain = s.words(2000)
            used, payload, _ = compress(plain, codec, 3, 0)
            fields = ChunkFields(s.UID, 5, 0, 1, 4000, used, len(plain))
            sealed = bytes(seal_chunk(suite, s.DEK, fields, payload))
            secret = keys.chunk_secret(s.DEK, sealed[:72])
            made.append(
                {
                    "suite": int(suite),
                    "codec": int(codec),
                    "plain": plain,
                    "payload": bytes(payload),
                    "cs": secret,
                    "seal_keys": list(keys.seal_keys(secret)),
                    "sealed": sealed,
                }
            )
    return made


def _index(track: dict[str, Any], sealed: list[dict[str, Any]]) -> dict[str, Any]:
    first, last = parse(track["main"][0]["whole"]), parse(track["main"][2]["whole"])
    file = sealed[0]["sealed"]
    entry = Entry(
        index=0,
        track=0,
        part=0,
        offset=0,
        plain=2000,
        sealed=len(file),
        first_us=first.header.time_us,
        last_us=last.header.time_us,
        first_seq=0,
        last_seq=2,
        prev_head=first.header.prev_head,
        last_head=last.head,
        digest=h(file),
    )
    index = Entry(1, INDEX_TRACK, 0, 0, 100, 244, 0, 0, 0, 0, ZERO, ZERO, h(b"index"))
    rows = [
        entry,
        *(FragmentRow.of(parse(each["whole"])) for each in track["main"][:3]),
        KeyFrameRow(0, s.START_US + 1, 0, 0),
        MetadataRow({"description": "caf\u00e9"}),
    ]
    return {
        "entries": [
            {"fields": asdict(each), "packed": each.pack(), "leaf": merkle_tree.leaf(each.pack())}
            for each in (entry, index)
        ],
        "rows": b"".join(pack_row(row) for row in rows),
    }


def _merkle() -> dict[str, Any]:
    leaves = [merkle_tree.leaf(bytes((n,))) for n in range(9)]
    return {
        "leaves": leaves,
        "roots": [merkle_tree.root(leaves[:size]) for size in range(10)],
        "trees": [merkle_tree.Tree(leaves[:size]).pack() for size in range(10)],
        "inclusion": [merkle_tree.inclusion_proof(leaves, n).pack() for n in range(9)],
        "consistency": [merkle_tree.consistency_proof(leaves, n).pack() for n in range(10)],
    }


def _dsse() -> dict[str, Any]:
    payload = jcs({"type": "lucid.trust", "text": "caf\u00e9", "numbers": [0, -1, 2**53 - 1]})
    return {
        "payload": payload,
        "type": dsse.TRUST,
        "public": s.SIGNER_PUBLIC,
        "envelope": dsse.build(payload, dsse.TRUST, s.SIGNER.sign, s.SIGNER_PUBLIC),
    }


def _details() -> dict[str, Any]:
    members = s.DETAILS.model_dump(mode="json")
    return {
        "members": members,
        "details": details.seal_details(s.DEK, s.UID, 3, s.DETAILS),
        "none": details.seal_details(s.DEK, s.UID, 1, Details()),
        "password": details.seal_password(s.DEK, s.UID, 3, s.PASSWORD),
    }


def _refusals(track: dict[str, Any], sealed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Bytes that a reader must refuse, and the code it names."""
    data, tick, end = track["main"][1]["whole"], track["main"][2]["whole"], track["end"]["whole"]
    file = sealed[0]["sealed"]
    made = [
        ("fragment", name, _put(data, at, value))
        for name, at, value in (
            ("fragment.magic", 0, 0),
            ("fragment.magic", 4, 2),
            ("fragment.kind", 5, 9),
            ("fragment.flags", 6, 2),
            ("fragment.track", 8, 2),
            ("fragment.reserved", 10, 1),
            ("fragment.reserved", 63, 1),
            ("fragment.range", 39, 1),
            ("fragment.first", 32, 0),
            ("fragment.length", 48, 0xFF),
        )
    ]
    made += [
        ("fragment", "fragment.size", data[:159]),
        ("fragment", "fragment.flags", _put(tick, 6, 1)),
        ("fragment", "fragment.length", data + b"\0"),
        ("fragment", "fragment.end", _put(end, 32, 1)),
        ("fragment", "fragment.part", _put(track["main"][0]["whole"], 12, 1)),
        ("fragment", "fragment.track", _put(track["main"][8]["whole"], 8, 1)),
    ]
    made += [
        ("chunk", name, _put(file, at, value))
        for name, at, value in (
            ("chunk.header", 0, 0),
            ("chunk.header", 5, 3),
            ("chunk.header", 6, 5),
            ("chunk.header", 7, 1),
            ("chunk.header", 10, 2),
            ("chunk.header", 51, 2),
            ("chunk.commitment", 32, 4),
            ("chunk.commitment", 96, file[96] ^ 1),
            ("chunk.tag", 72, file[72] ^ 1),
            ("chunk.tag", 128, file[128] ^ 1),
            ("chunk.tag", len(file) - 1, file[-1] ^ 1),
        )
    ]
    made += [("chunk", "chunk.length", file + b"\0"), ("chunk", "chunk.length", file[:-1])]
    made += [("chunk", "chunk.header", file[:127]), ("chunk", "chunk.payload", _false_payload())]
    made += [
        ("json", code, text)
        for code, text in (
            ("json.form", b"\xff"),
            ("json.null", b"null"),
            ("json.number", b"9007199254740992"),
            ("json.number", b"1.0"),
            ("json.duplicate", b'{"a":1,"a":1}'),
            ("json.canonical", b'{"b":1,"a":1}'),
            ("json.canonical", b'"\\u0061"'),
        )
    ]
    return [{"of": of, "code": code, "bytes": raw} for of, code, raw in made]


def _put(raw: bytes, at: int, value: int) -> bytes:
    changed = bytearray(raw)
    changed[at] = value
    return bytes(changed)


def _false_payload() -> bytes:
    """A chunk of a key holder whose zstd payload is one byte longer than it says."""
    payload = bytes(compress(s.words(2000), Codec.ZSTD, 3, 0).payload)
    fields = ChunkFields(s.UID, 5, 0, 1, 4000, Codec.ZSTD, 2000)
    made = bytes(seal_chunk(Suite.AES_256_GCM, s.DEK, fields, payload + b"\0"))
    assert ChunkHeader.parse(made[:128]).payload == len(payload) + 1
    return made


if __name__ == "__main__":
    main()
