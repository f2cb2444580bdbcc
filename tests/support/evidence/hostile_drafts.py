"""Evidence that can be restructured, and true ones to begin with; for tests."""

import copy
import json
from dataclasses import dataclass, field
from typing import Any

from schemas.errors import LucidError
from schemas.format import dsse
from schemas.format.digest import h
from schemas.format.jcs import jcs
from tests.support.evidence.evidence_case import Case, Held, signed, signed_text
from tests.support.evidence.recorded_session import ROOT, RecordedSession, trust

Json = dict[str, Any]
BASES: dict[str, Json] = {
    "two tracks": {"fragments": 4},
    "two seals": {"fragments": 2},
    "holes": {"fragments": 6, "dropped": {3, 6}, "end": True},
    "a hole before a final": {"fragments": 4, "dropped": {4}},
    "ended by the platform": {"fragments": 4, "end": True},
    "a chunk lost": {"fragments": 4, "lost": (1,)},
    "the last one lost": {"fragments": 4, "lost": (0, 3)},
    "two fragments for one place": {"fragments": 3, "twice": True, "suite": 2},
    "raw": {"fragments": 3, "codec": 0},
}
"""What a RecordedSession is made with. Each is another session of one host: it never asked for one twice."""


@dataclass
class Draft:
    """Evidence that can be changed; `manifests` are payloads, the first seal first."""

    manifests: list[Json]
    lines: list[bytes]
    chunks: dict[int, bytes]
    trust: Json
    keys: bytes | None
    envelopes: dict[int, bytes] = field(default_factory=dict)
    """Seals that are written as they stand here, by number."""
    names: dict[str, bytes] = field(default_factory=dict)
    """Other files, by path."""

    def evidence(self) -> Held:
        manifests = {number: text_signed(one) for number, one in enumerate(self.manifests, 1)}
        lines = b"".join(self.lines).splitlines(keepends=True)
        return Held(manifests | self.envelopes, self.chunks, lines)

    def trust_file(self) -> bytes:
        public = ROOT.public_key().public_bytes_raw()
        return dsse.build(text(self.trust), dsse.TRUST, ROOT.sign, public)


def text(value: Any) -> bytes:
    """Its canonical text, or what comes nearest to one."""
    try:
        return jcs(value)
    except LucidError:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(
            errors="replace"
        )


def text_signed(manifest: Any) -> bytes:
    try:
        return signed(manifest)
    except LucidError:
        return signed_text(text(manifest))


def drafts() -> dict[str, Draft]:
    """Every base, unchanged."""
    made: dict[str, Draft] = {}
    payload = dsse.parse(trust(), dsse.TRUST).value
    for counter, (name, said) in enumerate(BASES.items(), 1):
        case = Case(RecordedSession(small=True, counter=counter, **said))
        assert case.held.lines is not None
        manifests = [case.manifest]
        if name == "two seals":
            manifests = [copy.deepcopy(case.manifest), sealed_again(case)]
        made[name] = Draft(manifests, case.held.lines, case.held.chunks, copy.deepcopy(payload), case.keys)
    return made


def sealed_again(case: Case) -> Json:
    """The manifest of a second seal, whose line is added to the history."""
    assert case.held.lines is not None
    manifest = case.manifest
    first = dsse.parse(case.held.manifests[1], dsse.MANIFEST).digest
    manifest |= {"seal_no": 2, "prev_manifest": first.hex(), "sealed_us": manifest["sealed_us"] + 1}
    started = json.loads(case.held.lines[-1]) | {"seal_no": 2, "sealed_us": manifest["sealed_us"]}
    case.held.lines.append(jcs(started) + b"\n")
    digest = h(b"".join(case.held.lines)).hex()
    manifest["lifecycle"] = {"last": len(case.held.lines), "digest": digest}
    return manifest
