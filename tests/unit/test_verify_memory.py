"""Verifying hostile evidence takes memory in proportion to its bytes, and little more of it."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.format.jcs import jcs
from tests.support.evidence.evidence_case import Case, signed_text
from tests.support.evidence.recorded_session import RecordedSession, trust

MANIFEST_BYTES = 12 << 20
FACTOR = 8
"""Peak memory per byte of manifest, the file itself included. An honest manifest takes 3 to 4."""
BASE_BYTES = 16 << 20
"""For what does not grow with the manifest: a chunk, a line of history, 1,000 findings."""

CHILD = """
import sys
from pathlib import Path
from handlers.crypto.trust import open_trust
from handlers.verify.session import verify
from infra.disk.evidence_copy import copy_at
import streams.cli.verdict
folder, trust, warm = map(Path, sys.argv[1:4])
trusted = open_trust(trust.read_bytes(), now_us=1)
keys = folder.parent / "keys.json"
verify(copy_at(warm), trusted, keys=keys.read_bytes() if keys.exists() else None)
def peak():  # of this program's memory alone; getrusage remembers the parent's
    said = Path("/proc/self/status").read_text().split("VmHWM:")[1]
    return int(said.split()[0]) * 1024
before = peak()
report = verify(copy_at(folder), trusted, keys=keys.read_bytes() if keys.exists() else None)
print(report.exit_code, peak() - before)
"""


def many(
    name: str, least: Callable[[dict[str, Any], int], dict[str, Any]]
) -> Callable[[dict[str, Any]], bytes]:
    """A manifest whose list `name` holds as many items as fit."""

    def make(manifest: dict[str, Any]) -> bytes:
        item = manifest[name][0]
        length = len(jcs(least(copy.deepcopy(item), 2**32 - 1)))
        count = MANIFEST_BYTES * 3 // 4 // (length + 1)
        manifest[name] = [least(copy.copy(item), number) for number in range(count)]
        for number, last in enumerate(manifest["index"] if name == "chunks" else (), count):
            last["index"] = number
        return json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()

    return make


def filled(filler: str, name: str = "chunks") -> Callable[[dict[str, Any]], bytes]:
    """A manifest whose member `name` is a list of the shortest JSON."""

    def make(manifest: dict[str, Any]) -> bytes:
        manifest[name] = "here"
        text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
        count = MANIFEST_BYTES * 3 // 4 // (len(filler) + 1)
        return text.replace(f'"{name}":"here"', f'"{name}":[' + ",".join([filler] * count) + "]").encode()

    return make


HOSTILE: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "chunks": many("chunks", lambda item, number: item | {"index": number}),
    "chunks of nothing": many(
        "chunks", lambda item, number: item | {"index": number, "plain": 0, "offset": 0, "first_us": number}
    ),
    "gaps": many(
        "gaps", lambda item, number: item | {"first_seq": number, "last_seq": number, "reason": "x"}
    ),
    "parts": many("parts", lambda item, number: item | {"part": number, "fragment": "A" * 216}),
    "index chunks": many("index", lambda item, number: item | {"index": number}),
    "equivocations": many("equivocations", lambda item, number: item | {"seq": number}),
    "empty lists": filled("[]"),
    "empty objects": filled("{}"),
    "numbers": filled("9", "gaps"),
    "texts": filled('""', "parts"),
    "one long text": lambda manifest: jcs(manifest | {"session": "x" * (MANIFEST_BYTES * 3 // 4)}),
    "depth": filled("[" * 1_000_000),
    "no member we know": lambda manifest: jcs({"a": [[]] * (MANIFEST_BYTES // 4)}),
}


@pytest.fixture(scope="module")
def true_case() -> Case:
    return Case(RecordedSession(fragments=4, dropped={3, 6}, twice=True, end=True))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_manifest_takes_memory_in_proportion(name: str, true_case: Case, tmp_path: Path) -> None:
    """Breaks: one file of 512 MiB takes every verifier's memory, and no verdict comes."""
    case = true_case.again()
    folder, warm = tmp_path / "copy", tmp_path / "warm"
    for place in (folder, warm):
        (place / "manifests").mkdir(parents=True)
        (place / "chunks").mkdir()
        (place / "history.ndjson").write_bytes(b"".join(case.held.lines or ()))
    (warm / "manifests" / "1.dsse.json").write_bytes(case.held.manifests[1])
    raw = signed_text(HOSTILE[name](case.manifest))
    (folder / "manifests" / "1.dsse.json").write_bytes(raw)
    (tmp_path / "trust.json").write_bytes(trust())
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), str(tmp_path / "trust.json"), str(warm)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    code, peak = map(int, done.stdout.split())
    print(f"{name}: {peak / len(raw):.1f} bytes a byte of {len(raw)}")
    assert code == 3
    assert peak < FACTOR * len(raw) + BASE_BYTES
