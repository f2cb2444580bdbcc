"""Verifies an evidence copy: `python docs/examples/verify.py DIR TRUST_FILE ROOT_FINGERPRINT`.

Written from docs/format.md with blake3, cryptography and rfc8785 alone; nothing of this project is imported.

1. It checks the trust file, every manifest and its signature, the files, the Merkle tree, the ending, the
   history, and that the host signed the last fragment of every chunk, in one chain.
2. It does not check: equivocations, totals, part fragments, chunk headers, unknown members, and the contents
   of chunks (this needs the data key). `lucid verify` and tests/independent/reader.py check all of §13.
3. A session with gaps, lost chunks or an ending by the platform is beyond it: it says so and ends with 3.
Exit status: 0 true, 3 false, 9 true but the signer or the host is not in the trust file.
"""

import base64
import json
import struct
import sys
import time
from pathlib import Path
from typing import Any

import rfc8785
from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ENTRY = struct.Struct("<QHIQIIqqQQ32s32s32s")  # §7
FRAGMENT = struct.Struct("<4sBBHHHI16sQqI12s32s")  # §4
INDEX_TRACK, DATA_OVERHEAD, FINAL = 0xFFFF, 144, 7
MANIFEST, TRUST = "application/vnd.lucid.manifest.v1+json", "application/vnd.lucid.trust.v1+json"
Json = dict[str, Any]


class EvidenceError(Exception):
    """The copy is not what was sealed, or more than this example can judge."""


def need(true: object, said: str) -> None:
    if not true:
        raise EvidenceError(said)


def h(data: bytes) -> bytes:
    return blake3(data).digest()


def derive(context: str, data: bytes) -> bytes:
    return blake3(data, derive_key_context=context).digest()


def check_signature(key: bytes, message: bytes, signature: bytes, said: str) -> None:
    """§1 asks for more than this library refuses (points of small order): a full verifier checks them."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise EvidenceError(f"{said}: the signature is false") from None


def strict(raw: bytes) -> Json:
    """§1: a document counts only if its bytes are canonical."""
    try:
        value = json.loads(raw)
        need(isinstance(value, dict) and rfc8785.dumps(value) == raw, "a document is not canonical JSON")
    except (ValueError, rfc8785.CanonicalizationError):
        raise EvidenceError("a document is not JSON") from None
    document: Json = value
    return document


def opened(raw: bytes, payload_type: str, key_of: Any) -> tuple[Json, bytes]:
    """§9: the payload of a DSSE envelope and its signing key; `key_of` finds the key in the payload."""
    envelope = strict(raw)
    payload = base64.b64decode(envelope["payload"], validate=True)
    (signed,) = envelope["signatures"]
    body = strict(payload)
    key = bytes.fromhex(key_of(body))
    need(envelope["payloadType"] == payload_type, "an envelope is of another type")
    need(signed["keyid"] == h(key).hex(), "an envelope names another key")
    message = b"DSSEv1 %d %s %d %s" % (len(payload_type), payload_type.encode(), len(payload), payload)
    check_signature(key, message, base64.b64decode(signed["sig"], validate=True), payload_type)
    return body, key


def listed(trust: Json, role: str, key: str, at_us: int, name: str | None = None) -> bool:
    """§10: whether the trust file lists this key for the role at that time."""
    entries = [one for one in trust["keys"] if (one["role"], one["key"]) == (role, key)]
    fit = [
        one for one in entries if name in (None, one["name"]) and one["from_us"] <= at_us < one["until_us"]
    ]
    return bool(fit) and not any(one["revoked_us"] for one in entries)


def tree(leaves: list[bytes]) -> bytes:
    """§7: the root over leaves, in the shape of RFC 9162 §2.1."""
    if len(leaves) < 2:
        return leaves[0] if leaves else h(b"")
    left = 1 << ((len(leaves) - 1).bit_length() - 1)
    return h(b"\1" + tree(leaves[:left]) + tree(leaves[left:]))


def leaf(one: Json) -> bytes:
    numbers = "index track part offset plain sealed first_us last_us first_seq last_seq"
    digests = (bytes.fromhex(one[name]) for name in ("prev_head", "last_head", "digest"))
    return h(b"\0" + ENTRY.pack(*(one[name] for name in numbers.split()), *digests))


def check_host(manifest: Json, uid: bytes) -> None:
    """§2, §4, §13 steps 2, 3, 5, 6: uid, geneses, and one signed chain on each track up to the final."""
    host = manifest["host"]
    key, previous = bytes.fromhex(host["key"]), bytes.fromhex(host["prev_genesis"])
    begun = key + struct.pack("<Q", host["counter"])
    need(derive("lucid v1 uid", begun)[:16] == uid, "uid is not of this host and counter")
    heads: dict[int, str] = {}
    seqs: dict[int, int] = {}
    offsets: dict[int, int] = {}
    for track in manifest["tracks"]:
        raw = uid + struct.pack("<H", track["id"]) + begun + previous + bytes.fromhex(host["intake"])
        heads[track["id"]] = derive("lucid v1 genesis", raw).hex()
        need(heads[track["id"]] == track["genesis"], "a genesis is not of this session")
    need(not manifest["gaps"] and manifest["end"] == "final", "gaps or a missing final: not judged here")
    for one in manifest["chunks"]:
        track, header = one["track"], bytes.fromhex(one["header"])
        follows = (one["prev_head"], one["first_seq"], one["offset"])
        wanted = (heads[track], seqs.get(track, -1) + 1, offsets.get(track, 0))
        need(follows == wanted, f"chunk {one['index']} does not follow the one before it")
        *_, header_uid, seq, last_us, _, _, _ = FRAGMENT.unpack(header)
        need(
            (header_uid, seq, last_us) == (uid, one["last_seq"], one["last_us"]),
            "a header is of another chunk",
        )
        head = derive("lucid v1 head", header + bytes.fromhex(one["body_digest"]))
        need(head.hex() == one["last_head"], f"the last head of chunk {one['index']} is false")
        message, signature = b"lucid v1 fragment\0" + head, bytes.fromhex(one["signature"])
        check_signature(key, message, signature, f"chunk {one['index']}")
        heads[track], seqs[track] = one["last_head"], one["last_seq"]
        offsets[track] = one["offset"] + one["plain"]
    ending = base64.b64decode(manifest["ending"], validate=True)
    header, body = ending[:96], ending[96:-64]
    need(FRAGMENT.unpack(header)[2] == FINAL, "the ending is no final")
    need(derive("lucid v1 head", header + h(body)).hex() == heads[0], "the final is not the last fragment")
    named = {track["id"]: track for track in strict(body)["tracks"]}
    need(set(named) == set(heads), "the final names other tracks")
    for track, said in named.items():
        last = seqs[track] - (track == 0)  # track 0 ends with the final itself
        need((said["last_seq"], said["plain"]) == (last, offsets[track]), f"track {track} is cut short")


def check_files(copy: Path, manifest: Json) -> None:
    """§7, §11: the length and digest of every file, no file besides, and the Merkle root over all."""
    entries = manifest["chunks"] + manifest["index"]
    need([one["index"] for one in entries] == list(range(len(entries))), "a chunk is missing from the list")
    names = {f"{one['index']:010}" for one in entries}
    need(
        {path.name for path in (copy / "chunks").iterdir()} == names,
        "chunk files are missing or added",
    )
    for one in entries:
        file = (copy / "chunks" / f"{one['index']:010}").read_bytes()
        found = (len(file), h(file).hex())
        need(found == (one["sealed"], one["digest"]), f"chunk {one['index']} is not what was sealed")
    merkle = manifest["merkle"]
    said = (merkle["tree_size"], merkle["root"])
    need(said == (len(entries), tree([leaf(one) for one in entries]).hex()), "the Merkle root is false")


def check_history(lines: list[bytes], manifest: Json) -> None:
    """§11: the digest over the sealed lines, the host's own request, the line of this seal.

    No seal covers the lines after its own.
    """
    lifecycle = manifest["lifecycle"]
    sealed = lines[: lifecycle["last"]]
    need(h(b"".join(sealed)).hex() == lifecycle["digest"], "the history is not what was sealed")
    asked, started = strict(sealed[0].rstrip(b"\n")), strict(sealed[-1].rstrip(b"\n"))
    names = ("counter", "host", "host_key", "prev_genesis", "session", "settings")
    request = b"lucid v1 create\0" + rfc8785.dumps({name: asked[name] for name in names})
    key = bytes.fromhex(manifest["host"]["key"])
    check_signature(key, request, bytes.fromhex(asked["request"]), "the host's request")
    need(
        (asked["session"], asked["host_key"]) == (manifest["session"], key.hex()),
        "another session was asked for",
    )
    need(
        (started["type"], started["seal_no"]) == ("SealStarted", manifest["seal_no"]),
        "another seal was started",
    )


def verify(copy: Path, trust_file: Path, root: str) -> int:
    """The exit status. Raises EvidenceError."""
    trust, root_key = opened(trust_file.read_bytes(), TRUST, lambda body: body["root"])
    need(h(root_key).hex() == root, "the trust file is signed by another root")
    need(time.time_ns() // 1000 < trust["expires_us"], "the trust file is expired")
    before, known = bytes(32), True
    manifest: Json = {}
    lines = (copy / "history.ndjson").read_bytes().splitlines(keepends=True)
    seals = sorted((copy / "manifests").iterdir(), key=lambda path: int(path.name.split(".")[0]))
    for number, path in enumerate(seals, 1):
        raw = path.read_bytes()
        manifest, signer = opened(raw, MANIFEST, lambda body: body["signer"]["key"])
        named = (path.name, manifest["seal_no"], manifest["prev_manifest"])
        need(named == (f"{number}.dsse.json", number, before.hex()), "the seals are not one series")
        check_host(manifest, bytes.fromhex(manifest["uid"]))
        check_history(lines, manifest)
        host, before = manifest["host"], h(raw)
        known &= listed(trust, "signer", signer.hex(), manifest["sealed_us"])
        known &= listed(trust, "host", host["key"], manifest["started_us"], host["name"])
    need(manifest, "there is no manifest")
    check_files(copy, manifest)
    print(f"{manifest['session']}: all checks passed{'' if known else '; a key is not in the trust file'}")
    return 0 if known else 9


if __name__ == "__main__":
    try:
        sys.exit(verify(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
    except (EvidenceError, OSError, KeyError, TypeError, ValueError, struct.error) as error:
        print(f"FALSE: {error}", file=sys.stderr)
        sys.exit(3)
