"""A sealed session as evidence in memory, that a test may damage and sign again; for tests."""

import base64
import copy
import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from handlers.crypto.trust import Trust, open_trust
from handlers.format.merkle_tree import Tree, leaf
from handlers.verify.report import Report
from handlers.verify.session import verify
from schemas.format import dsse
from schemas.format.digest import h
from schemas.format.index import ENTRY, Entry
from schemas.format.jcs import jcs
from schemas.ports.evidence import Listing
from tests.support.evidence.recorded_session import KEYS, SIGNING, RecordedSession, trust

NOW_US = 1_800_000_000_000_000
Change = Callable[[dict[str, Any]], object]


def trusted() -> Trust:
    return open_trust(trust(), now_us=NOW_US)


@dataclass
class Held:
    """Evidence in dicts; a schemas.ports.evidence.Evidence."""

    manifests: dict[int, bytes]
    chunks: dict[int, bytes]
    lines: list[bytes] | None
    strange_manifests: tuple[str, ...] = ()
    strange_chunks: tuple[str, ...] = ()
    stray_manifests: tuple[str, ...] = ()
    stray_chunks: tuple[str, ...] = ()
    stray_files: tuple[str, ...] = ()

    def strays(self) -> tuple[str, ...]:
        return self.stray_files

    def seals(self) -> Listing:
        return Listing(frozenset(self.manifests), self.strange_manifests, self.stray_manifests)

    def manifest(self, seal_no: int, limit: int) -> bytes | None:
        return self.manifests.get(seal_no, b"")[: limit + 1] or None

    def indices(self) -> Listing:
        return Listing(frozenset(self.chunks), self.strange_chunks, self.stray_chunks)

    def chunk(self, index: int, limit: int) -> bytes | None:
        found = self.chunks.get(index)
        return None if found is None else found[: limit + 1]

    def history(self, line_limit: int) -> Iterator[bytes] | None:
        return None if self.lines is None else iter([line[:line_limit] for line in self.lines])


@dataclass
class Case:
    """One session's evidence, and its manifest as JSON. `keys` is keys.json."""

    recorded: RecordedSession = field(default_factory=RecordedSession)
    held: Held = field(init=False)
    manifest: dict[str, Any] = field(init=False)
    keys: bytes = field(init=False)

    def __post_init__(self) -> None:
        _, envelope = self.recorded.seal()
        lines = [line + b"\n" for line in self.recorded.history]
        self.held = Held({1: envelope}, dict(self.recorded.files), lines)
        self.manifest = json.loads(dsse.parse(envelope, dsse.MANIFEST).payload)
        said = {"uid": self.recorded.uid.hex(), "dek_id": KEYS.dek_id.hex(), "dek": KEYS.dek.hex()}
        self.keys = jcs(said)

    def again(self) -> "Case":
        """The same evidence, to be damaged on its own."""
        other = copy.copy(self)
        other.held = copy.deepcopy(self.held)
        other.manifest = copy.deepcopy(self.manifest)
        return other

    def verify(self, *, keys: bool = True, strict: bool = False) -> Report:
        return verify(self.held, trusted(), keys=self.keys if keys else None, strict=strict)

    def codes(self, *, keys: bool = True) -> set[str]:
        return {finding.code for finding in self.verify(keys=keys).findings}

    def resign(self, change: Change, *, mended: bool = True) -> "Case":
        """Play the insider: change the manifest, make tree and totals fit, sign with the listed key."""
        change(self.manifest)
        if mended:
            mend(self.manifest)
        self.held.manifests[max(self.held.manifests)] = signed(self.manifest)
        return self

    def retell(self) -> "Case":
        """Go on with it: make the history fit the manifest as far as a signer can, and sign again."""
        lines, manifest = self.held.lines, self.manifest
        if lines is None:
            return self
        last = manifest["lifecycle"]["last"]
        host = manifest["host"]
        created = json.loads(lines[0]) | {
            "session": manifest["session"], "uid": manifest["uid"], "host": host["name"],
            "host_key": host["key"], "counter": host["counter"], "prev_genesis": host["prev_genesis"],
        }  # fmt: skip
        created["settings"] |= manifest["settings"]
        started = json.loads(lines[last - 1]) | {
            "seal_no": manifest["seal_no"], "sealed_us": manifest["sealed_us"], "n": len(manifest["chunks"]),
            "signer": dsse.fingerprint(bytes.fromhex(manifest["signer"]["key"])).hex(),
        }  # fmt: skip
        lines[0], lines[last - 1] = jcs(created) + b"\n", jcs(started) + b"\n"
        digest = h(b"".join(lines[:last])).hex()
        return self.resign(lambda manifest: manifest["lifecycle"].update(digest=digest), mended=False)

    def put_chunk(self, index: int, sealed: bytes) -> "Case":
        """Replace a file and everything that a signer can say of it."""
        self.held.chunks[index] = sealed

        def change(manifest: dict[str, Any]) -> None:
            listed = [*manifest["chunks"], *manifest["index"]][index]
            listed |= {"digest": h(sealed).hex(), "sealed": len(sealed)}

        return self.resign(change)


def signed(manifest: dict[str, Any]) -> bytes:
    """The manifest in an envelope of the listed signer."""
    return signed_text(jcs(manifest))


def signed_text(payload: bytes) -> bytes:
    """Any bytes at all in an envelope of the listed signer."""
    return dsse.build(payload, dsse.MANIFEST, SIGNING.sign, SIGNING.public)


def mend(manifest: dict[str, Any]) -> None:
    """Make tree and totals fit what is listed, as a careful liar would; leave them where nothing fits."""
    every = [*manifest["chunks"], *manifest["index"]]
    try:
        leaves = [leaf(entry_of(item).pack()) for item in every]
    except (ValueError, KeyError, TypeError, struct.error):
        return
    tree = Tree(leaves)
    manifest["merkle"] = {"tree_size": tree.size, "root": tree.root.hex()}
    manifest["totals"] = {
        "chunks": len(manifest["chunks"]),
        "index_chunks": len(manifest["index"]),
        "fragments": sum(c["last_seq"] - c["first_seq"] + 1 for c in manifest["chunks"]),
        "plain": sum(item["plain"] for item in every),
        "sealed": sum(item["sealed"] for item in every),
    }


def entry_of(item: dict[str, Any]) -> Entry:
    values = [item[name] for name in Entry.__slots__]
    packed = ENTRY.pack(*values[:10], *(bytes.fromhex(value) for value in values[10:]))
    return Entry(*ENTRY.unpack(packed))


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of every text, number and truth value; of long lists, in the first item and the last."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield from leaves(member, (*path, name))
    elif isinstance(value, list):
        for number in sorted({0, len(value) - 1} if value else ()):
            yield from leaves(value[number], (*path, number))
    else:
        yield path


def put(value: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> None:
    for step in path[:-1]:
        value = value[step]
    value[path[-1]] = change(value[path[-1]])


def another(value: Any) -> Any:
    """A value of the same form."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case "final":
            return "aborted"
        case "aborted":
            return "host_lost"
        case "host" | "installation":
            return "host" if value == "installation" else "installation"
        case str() if len(value) >= 32 and all(digit in "0123456789abcdef" for digit in value):
            return ("1" if value[0] == "0" else "0") + value[1:]
        case str() if value.endswith("="):
            raw = bytearray(base64.b64decode(value))
            raw[40] ^= 1
            return base64.b64encode(raw).decode()
        case _:
            return value + "x"
