"""The worked examples of docs/format.md, computed by the independent writer.

1. A block ```` ```hex NAME ```` holds bytes, ```` ```text NAME ```` holds ASCII; line breaks do not count.
2. The HPKE envelope of the example is random once and for all: it is taken from the document.

`python tests/independent/format_examples.py` writes every block of the document anew.
"""

from __future__ import annotations

import re
from pathlib import Path

import reader_audit
import reader_crypto as crypto
import reader_shapes as shapes
import writer
from reader_bytes import (
    DATA,
    END,
    PART,
    Fragment,
    Header,
    leaf,
    pack_entry,
    read_chunk_header,
    split_part_body,
)
from reader_crypto import ZERO32, h
from reader_keyed import open_chunk
from writer_host import START_US, Plan, secret, signing

DOCUMENT = Path(__file__).parents[2] / "docs" / "format.md"
BLOCK = re.compile(r"^```(hex|text) ([a-z0-9-]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLAIN = b"Hello, evidence."
MASTER_VERSION = 3


def read_blocks(document: str) -> dict[str, bytes]:
    """Return every block by name; a name stands once."""
    found: dict[str, bytes] = {}
    for kind, name, content in BLOCK.findall(document):
        if name in found:
            raise ValueError(f"{name} stands twice")
        joined = content.replace("\n", "")
        found[name] = bytes.fromhex(joined) if kind == "hex" else joined.encode("ascii")
    return found


def compute(envelope: bytes) -> dict[str, bytes]:
    """Return what each block must hold; envelope: enc ‖ ciphertext of the part, or empty for a new one."""
    plan = Plan(((0, PART, b"start", 0), (0, DATA, PLAIN, 1)), codec=0, envelope=envelope)
    copy = writer.make(plan)
    manifest = copy.manifest
    part, data, final = copy.sent
    return (
        _keys(copy)
        | _part(copy, part)
        | _fragment_parts(data, final)
        | _end(copy)
        | _chunk(copy)
        | {
            "entry-0": pack_entry(manifest["chunks"][0]),
            "leaf-0": leaf(manifest["chunks"][0]),
            "leaf-1": leaf(manifest["index"][0]),
            "root": bytes.fromhex(manifest["merkle"]["root"]),
            "index-plain": open_chunk(copy.dek, copy.files["chunks/0000000001"]),
            "index-file": copy.files["chunks/0000000001"],
        }
        | _documents(copy)
        | _details(copy)
        | _audit()
    )


def _keys(copy: writer.Copy) -> dict[str, bytes]:
    host, dek = copy.host, copy.dek
    master, nonce = secret("master"), bytes(range(24))
    padding = bytes(number % 251 for number in range(3980))
    key_file = crypto.make_key_file(master, MASTER_VERSION, host.uid, dek, nonce, padding)
    return {
        "host-seed": secret("host"),
        "host-key": host.public,
        "signer-seed": secret("signer"),
        "signer-key": signing("signer")[1],
        "signer-fingerprint": h(signing("signer")[1]),
        "root-seed": secret("root"),
        "root-key": signing("root")[1],
        "dek": dek,
        "prev-genesis": host.prev_genesis,
        "uid": host.uid,
        "genesis-0": host.genesis(0),
        "dek-id": crypto.dek_id(dek),
        "intake-seed": crypto.expand(dek, b"lucid/v1/intake", 32),
        "intake-digest": h(host.intake_public),
        "master": master,
        "key-file-start": key_file[:116],
        "key-file-digest": h(key_file),
    }


def _part(copy: writer.Copy, part: Fragment) -> dict[str, bytes]:
    settings, enc, _ = split_part_body(part.body)
    intake = crypto.IntakeKey(copy.dek)
    shared = intake.decapsulate(enc)
    key, nonce = crypto.hpke_schedule(shared, b"lucid v1 part" + part.raw_header + settings)
    return {
        "part-key": secret("part 0 0"),
        "part-fragment": part.raw_header + part.body + part.signature,
        "part-shared": shared,
        "part-hpke-key": key,
        "part-hpke-nonce": nonce,
        "part-head": part.head,
    }


def _fragment_parts(data: Fragment, final: Fragment) -> dict[str, bytes]:
    return {
        "data-nonce": crypto.data_nonce(0, 1),
        "data-fragment": data.raw_header + data.body + data.signature,
        "data-digest": h(data.body),
        "data-head": data.head,
        "final-fragment": final.raw_header + final.body + final.signature,
        "final-head": final.head,
    }


def _end(copy: writer.Copy) -> dict[str, bytes]:
    """An end that closes the same session after its data fragment."""
    final = next(iter(copy.manifest["chunks"]))
    state = {"id": 0, "last_seq": 1, "head": final["header"][128:], "plain": len(PLAIN)}
    body = shapes.jcs({"end": "aborted", "reason": "operator", "tracks": [state]})
    header = Header(END, 0, 0, 0, copy.host.uid, 0, START_US + 60_000_000, len(body), ZERO32).pack()
    signature = signing("signer")[0].sign(crypto.END_PREFIX + crypto.fragment_head(header, h(body)))
    return {"end-fragment": header + body + signature}


def _chunk(copy: writer.Copy) -> dict[str, bytes]:
    sealed = copy.files["chunks/0000000000"]
    first = sealed[:72]
    key, nonce_key, commitment = crypto.chunk_keys(copy.dek, first)
    return {
        "chunk-header72": first,
        "chunk-cs": crypto.expand(copy.dek, b"lucid/v1/chunk\0" + first, 32),
        "chunk-key": key,
        "chunk-nonce-key": nonce_key,
        "chunk-commitment": commitment,
        "chunk-nonce": read_chunk_header(sealed).nonce,
        "chunk-file": sealed,
    }


def _documents(copy: writer.Copy) -> dict[str, bytes]:
    envelope = copy.files["manifests/1.dsse.json"]
    payload = shapes.jcs(copy.manifest)
    history = copy.files["history.ndjson"].splitlines()
    return {
        "manifest-payload": payload,
        "manifest-message": h(shapes.pae(shapes.MANIFEST_TYPE, payload)),
        "manifest-signature": signing("signer")[0].sign(shapes.pae(shapes.MANIFEST_TYPE, payload)),
        "manifest-digest": h(envelope),
        "history-1": history[0],
        "history-2": history[1],
        "history-3": history[2],
        "keys-json": copy.files["keys.json"],
        "trust-json": writer.trust_file(),
        "tombstone-json": _tombstone(copy, h(envelope)),
    }


def _tombstone(copy: writer.Copy, manifest: bytes) -> bytes:
    key, public = signing("signer")
    places = [{"place": "keys", "outcome": "overwritten"}, {"place": "fragments", "outcome": "emptied"}]
    payload = {
        "type": "lucid.tombstone", "version": 1, "uid": copy.host.uid.hex(),
        "dek_id": crypto.dek_id(copy.dek).hex(), "manifest": manifest.hex(), "who": "operator-7",
        "approver": "operator-9", "reason": "retention", "at_us": START_US + 86_400_000_000,
        "places": places, "backups_until_us": START_US + 2_592_000_000_000,
    }  # fmt: skip
    return shapes.build_envelope(shapes.jcs(payload), shapes.TOMBSTONE_TYPE, public, key.sign)


def _details(copy: writer.Copy) -> dict[str, bytes]:
    """Revision 1 of the personal fields."""
    fields = {
        "name": "Till 7, evening",
        "owner": "ada",
        "rdp_config": {"host": "till-7.example", "username": "ada"},
        "tags": ["audit", "till"],
    }
    text = shapes.jcs(fields)
    return {
        "details-text": text,
        "details-blob": crypto.seal_blob(copy.dek, copy.host.uid, 1, 1, text),
        "password-blob": crypto.seal_blob(copy.dek, copy.host.uid, 2, 1, b"not this one"),
    }


def _audit() -> dict[str, bytes]:
    """A stop that was asked for, and done."""
    asked = {
        "version": 1, "number": 1, "prev": ZERO32.hex(), "id": "5f" * 16, "phase": "asked",
        "at_us": START_US, "time_us": START_US, "set_back_us": 0, "who": "operator-7", "roles": ["ADMIN"],
        "address": "192.0.2.7", "action": "stop", "session": "demo-01", "uid": "",
        "reason": "end of shift", "request": "req-1", "outcome": "", "code": "", "detail": "",
    }  # fmt: skip
    first = shapes.jcs(asked)
    after = {"number": 2, "prev": h(first).hex(), "phase": "outcome", "at_us": START_US + 1500,
             "time_us": START_US + 1500, "reason": "", "outcome": "ok"}  # fmt: skip
    second = shapes.jcs(asked | after)
    head = {"type": "lucid.audit_head", "version": 1, "installation": "1d" * 16, "number": 2,
            "entry": h(second).hex(), "at_us": START_US + 2000}  # fmt: skip
    key, public = signing("signer")
    envelope = shapes.build_envelope(shapes.jcs(head), reader_audit.HEAD_TYPE, public, key.sign)
    return {"audit-1": first, "audit-2": second, "audit-head": envelope}


def write_files(blocks: dict[str, bytes], folder: Path) -> None:
    """Put the documented bytes where they belong: a whole evidence copy, and what lies beside it."""
    manifest = shapes.build_envelope(
        blocks["manifest-payload"],
        shapes.MANIFEST_TYPE,
        blocks["signer-key"],
        lambda message: blocks["manifest-signature"],
    )
    files = {
        "evidence/manifests/1.dsse.json": manifest,
        "evidence/chunks/0000000000": blocks["chunk-file"],
        "evidence/chunks/0000000001": blocks["index-file"],
        "evidence/history.ndjson": b"".join(blocks[f"history-{n}"] + b"\n" for n in (1, 2, 3)),
        "evidence/keys.json": blocks["keys-json"],
        "trust.json": blocks["trust-json"],
        "tombstone.json": blocks["tombstone-json"],
    }
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def wrapped(kind: str, data: bytes) -> str:
    text, width = (data.hex(), 64) if kind == "hex" else (data.decode("ascii"), 96)
    return "".join(text[at : at + width] + "\n" for at in range(0, len(text), width))


def rewrite() -> None:
    """Fill every block of the document; a new HPKE envelope is made when it has none."""
    document = DOCUMENT.read_text()
    part = read_blocks(document).get("part-fragment", b"")
    values = compute(part[-1232:-64])

    def fill(match: re.Match[str]) -> str:
        kind, name = match.group(1), match.group(2)
        return f"```{kind} {name}\n{wrapped(kind, values[name])}```"

    DOCUMENT.write_text(BLOCK.sub(fill, document))


if __name__ == "__main__":
    rewrite()
