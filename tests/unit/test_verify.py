"""Verification of what nobody changed: it is true, and the report says what it saw."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from handlers.crypto.trust import build_trust, open_trust
from handlers.verify.report import FINDINGS, NOTES, Report
from handlers.verify.session import verify
from schemas.errors import Denied
from schemas.format import dsse
from schemas.format.jcs import jcs
from schemas.format.trust import TrustKey
from streams.cli.verdict import AREAS, lines
from tests.support.evidence.evidence_case import Case, trusted
from tests.support.evidence.recorded_session import HOST_PUBLIC, KEYS, ROOT, SIGNING, RecordedSession

CASES: dict[str, Callable[[], RecordedSession]] = {
    "plain": RecordedSession,
    "aes and gzip": lambda: RecordedSession(suite=2, codec=4),
    "lz4": lambda: RecordedSession(codec=2),
    "brotli": lambda: RecordedSession(codec=3),
    "stored raw": lambda: RecordedSession(codec=0),
    "ended by the platform": lambda: RecordedSession(end=True),
    "fragments never arrived": lambda: RecordedSession(dropped={5, 6}, end=True),
    "a chunk lost": lambda: RecordedSession(lost=(1,)),
    "the first and the last chunk lost": lambda: RecordedSession(lost=(0, 4)),
    "long": lambda: RecordedSession(fragments=90),
    "short": lambda: RecordedSession(fragments=1),
}
ROOT_PUBLIC = ROOT.public_key().public_bytes_raw()
SPAN = {"from_us": 0, "until_us": 2**52, "revoked_us": 0}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("keys", [True, False])
def test_what_nobody_changed_is_true(name: str, keys: bool) -> None:
    """Breaks: honest evidence is called false, and nobody believes the verifier again."""
    report = Case(CASES[name]()).verify(keys=keys)
    assert report.findings == []
    assert (report.exit_code, report.verdict) == (0, "true")
    assert report.summary.opened is keys
    assert report.summary.chunks_good == report.summary.chunks > 0


def test_losses_are_notes_and_strict_makes_them_findings() -> None:
    """Breaks: a loss is hidden, or an honest loss cannot be told from a lie."""
    wanted = {
        "gap.declared": RecordedSession(dropped={5}, end=True),
        "chunk.lost": RecordedSession(lost=(1,)),
        "end.not_final": RecordedSession(end=True),
        "host.gap": RecordedSession(),
    }
    for code, recorded in wanted.items():
        case = Case(recorded)
        assert code in {note.code for note in case.verify().notes}
        strict = case.verify(strict=True)
        assert strict.exit_code == 3
        assert code in {finding.code for finding in strict.findings}


def test_a_lost_chunk_is_one_note_and_its_neighbours_are_still_checked() -> None:
    """Breaks: one lost chunk takes the proof of all others with it."""
    report = Case(RecordedSession(lost=(1,))).verify()
    assert [note.code for note in report.notes] == ["chunk.lost", "host.gap"]
    assert report.summary.chunks_good == report.summary.chunks


def verified_with(*keys: dict[str, object], root_us: int = 2**52) -> Report:
    case = Case()
    lines = [TrustKey.model_validate({**SPAN, **key}) for key in keys]
    raw = build_trust(lines, serial=1, issued_us=0, root=ROOT_PUBLIC, sign=ROOT.sign, life_us=root_us)
    return verify(case.held, open_trust(raw, now_us=1))


SIGNER_LINE: dict[str, object] = {"key": SIGNING.public, "role": "signer", "name": "signer-1"}
HOST_LINE: dict[str, object] = {"key": HOST_PUBLIC, "role": "host", "name": "host-1"}
STARTED_US = Case().manifest["started_us"]
UNLISTED: dict[str, list[dict[str, object]]] = {
    "absent": [HOST_LINE],
    "only a host": [HOST_LINE, SIGNER_LINE | {"role": "host"}],
    "not valid any more": [HOST_LINE, SIGNER_LINE | {"until_us": 5}],
    "not valid yet": [HOST_LINE, SIGNER_LINE | {"from_us": 2**51}],
    "revoked": [HOST_LINE, SIGNER_LINE | {"revoked_us": 7}],
    "revoked by another line": [HOST_LINE, SIGNER_LINE, SIGNER_LINE | {"revoked_us": 7}],
}


@pytest.mark.parametrize("name", UNLISTED)
def test_a_signer_that_is_not_listed_is_exit_9(name: str) -> None:
    """Breaks: evidence of a stranger, or of a stolen key, counts as the installation's."""
    report = verified_with(*UNLISTED[name])
    assert (report.findings, report.exit_code, report.verdict) == ([], 9, "signer_unknown")


UNLISTED_HOSTS: dict[str, list[dict[str, object]]] = {
    "absent": [SIGNER_LINE],
    "only a signer": [SIGNER_LINE, HOST_LINE | {"role": "signer"}],
    "under another name": [SIGNER_LINE, HOST_LINE | {"name": "host-2"}],
    "another key under its name": [SIGNER_LINE, HOST_LINE | {"key": SIGNING.public}],
    "not valid any more": [SIGNER_LINE, HOST_LINE | {"until_us": STARTED_US}],
    "not valid yet": [SIGNER_LINE, HOST_LINE | {"from_us": STARTED_US + 1}],
    "valid then under another name": [
        SIGNER_LINE,
        HOST_LINE | {"until_us": STARTED_US},
        HOST_LINE | {"name": "host-2"},
    ],
    "revoked": [SIGNER_LINE, HOST_LINE | {"revoked_us": 7}],
    "revoked under another name": [SIGNER_LINE, HOST_LINE, HOST_LINE | {"name": "x", "revoked_us": 7}],
}


@pytest.mark.parametrize("name", UNLISTED_HOSTS)
def test_a_host_that_is_not_listed_under_its_name_is_exit_9(name: str) -> None:
    """Breaks: a whole session of a stranger's machine, under a known host's name, is called true."""
    report = verified_with(*UNLISTED_HOSTS[name])
    assert (report.findings, report.exit_code, report.verdict) == ([], 9, "host_unknown")
    told = "\n".join(lines(report, "x", "trust.json"))
    assert "true" not in told
    assert "[host.revoked]" in told if "revoked" in name else "[host.unlisted]" in told


def test_the_word_true_never_appears_without_a_listed_signer() -> None:
    """Breaks: who reads the first word of a verdict takes a stranger's evidence for ours."""
    for keys in UNLISTED.values():
        assert "true" not in "\n".join(lines(verified_with(*keys), "x", "trust.json"))


def test_a_signer_is_listed_up_to_the_microsecond() -> None:
    """Breaks: a key counts at a time for which its owner never vouched."""
    sealed_us = Case().manifest["sealed_us"]
    assert verified_with(HOST_LINE, SIGNER_LINE | {"from_us": sealed_us}).exit_code == 0
    assert verified_with(HOST_LINE, SIGNER_LINE | {"from_us": sealed_us + 1}).exit_code == 9
    assert verified_with(HOST_LINE, SIGNER_LINE | {"until_us": sealed_us + 1}).exit_code == 0
    assert verified_with(HOST_LINE, SIGNER_LINE | {"until_us": sealed_us}).exit_code == 9


def test_lines_after_the_seal_are_counted_and_harmless() -> None:
    """Breaks: the event that says that a session was sealed makes its evidence false."""
    case = Case()
    assert case.held.lines is not None
    case.held.lines += [jcs({"type": "Sealed"}) + b"\n", jcs({"type": "Transitioned"}) + b"\n"]
    report = case.verify()
    assert (report.exit_code, report.summary.history_uncovered) == (0, 2)


def test_a_second_seal_is_linked_to_the_first() -> None:
    """Breaks: a corrected seal hides the one that it corrects."""
    case = second_seal(Case())
    report = case.verify()
    assert (report.findings, report.summary.seals) == ([], 2)
    del case.held.manifests[1]
    assert case.codes() == {"manifest.missing"}


def second_seal(case: Case) -> Case:
    """Seal again as seal 2, with a history that says so."""
    assert case.held.lines is not None
    manifest = case.manifest
    manifest |= {
        "seal_no": 2,
        "prev_manifest": dsse.parse(case.held.manifests[1], dsse.MANIFEST).digest.hex(),
    }
    manifest["sealed_us"] += 1
    started = {
        "type": "SealStarted",
        "seal_no": 2,
        "sealed_us": manifest["sealed_us"],
        "signer": dsse.fingerprint(SIGNING.public).hex(),
        "n": len(manifest["chunks"]),
    }
    case.held.lines.append(jcs(started) + b"\n")
    manifest["lifecycle"] = {"last": len(case.held.lines), "digest": dsse.h(b"".join(case.held.lines)).hex()}
    case.held.manifests[2] = b""
    return case.resign(lambda _: None)


def test_a_key_that_does_not_fit_leaves_no_verdict() -> None:
    """Breaks: true evidence is called false because somebody gave the wrong key, or edited it."""
    case = Case()
    others = {"uid": "00" * 16, "dek_id": KEYS.dek_id.hex(), "dek": KEYS.dek.hex()}
    other_dek = {"uid": case.manifest["uid"], "dek_id": KEYS.dek_id.hex(), "dek": "11" * 32}
    for said, code in ((others, "keys.unfit"), (other_dek, "keys.unfit"), ({"dek": 1}, "keys.malformed")):
        case.keys = jcs(said)
        with pytest.raises(Denied, match=code.replace(".", r"\.")):
            case.verify()
    for raw in (b"\x00" * 5000, case.again().keys + b"\n", b""):
        case.keys = raw
        with pytest.raises(Denied, match=r"keys\.malformed"):
            case.verify()
    case.held.manifests[1] = b"{}"  # what cannot be opened names no key, and a keys file may still be read
    case.keys = jcs(others)
    assert case.codes() == {"manifest.malformed"}


def test_a_file_that_nobody_sealed_is_a_note() -> None:
    """Breaks: a file manager leaves .DS_Store in a copy, and evidence is called false."""
    case = Case()
    before = case.verify().notes
    held = case.held
    held.strange_chunks = held.strange_manifests = ()
    held.stray_chunks, held.stray_manifests = (".DS_Store", "._0000000001"), ("Thumbs.db",)
    held.stray_files = ("README", "receipts")
    report = case.verify()
    told = [note for note in report.notes if note not in before]
    assert report.exit_code == 0
    assert {note.code for note in told} == {"file.unsealed"}
    assert {note.place for note in told} == {
        "chunks/.DS_Store",
        "chunks/._0000000001",
        "manifests/Thumbs.db",
        "README",
        "receipts",
    }
    assert case.verify(strict=True).exit_code == 3


def test_the_report_knows_what_it_saw() -> None:
    """Breaks: people read other numbers than were verified."""
    case = Case()
    summary = case.verify().summary
    assert summary.session == case.manifest["session"]
    assert summary.merkle_root == case.manifest["merkle"]["root"]
    assert summary.signer == dsse.fingerprint(SIGNING.public).hex()
    assert summary.signer_name == "signer-1"
    assert summary.root == trusted().root.hex()
    assert summary.fragments == case.manifest["totals"]["fragments"]
    assert summary.plain_bytes == len(case.recorded.plain(0)) + len(case.recorded.plain(1))


def test_no_code_is_both_a_finding_and_a_note() -> None:
    """Breaks: a script cannot tell from a code whether evidence is false."""
    assert not FINDINGS.keys() & NOTES.keys()


def test_the_documented_codes_are_the_codes() -> None:
    """Breaks: a script meets a code that no document names, or waits for one that never comes."""
    root = Path(__file__).parents[2]
    text = (root / "docs" / "verify.md").read_text()
    documented = dict(re.findall(r"^\| `([a-z_.]+)` \| (.+) \|$", text, re.MULTILINE))
    assert documented == FINDINGS | NOTES
    sources = "".join(path.read_text() for path in (root / "handlers" / "verify").glob("*.py"))
    used = set(re.findall(r'(?:Finding|_Stop)\(\s*"([a-z_]+\.[a-z_]+)"', sources))
    assert used == FINDINGS.keys() | NOTES.keys()
    assert {code.split(".")[0] for code in FINDINGS} <= AREAS.keys()
