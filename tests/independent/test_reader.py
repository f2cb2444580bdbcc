"""True evidence is called true, with its losses told, and everything unusable gets its exit code."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import reader_keyed
import writer
from copy_on_disk import Evidence
from reader_crypto import fingerprint
from writer_host import Plan, signing, steps

Write = Callable[[Plan], Evidence]
TINY = Plan(steps(1, 900))


@pytest.mark.parametrize("suite", [1, 2])
@pytest.mark.parametrize("codec", [0, 1, 2, 3, 4])
def test_a_true_copy_is_true_and_gives_back_every_byte(evidence: Write, suite: int, codec: int) -> None:
    """Breaks: honest evidence is called false, or decrypts to something else."""
    case = evidence(Plan(steps(), suite=suite, codec=codec))
    for track in (0, 1):
        assert case.read("--out", str(case.out), "--track", str(track)) == 0, case.said
        assert case.out.read_bytes() == case.copy.plain[track]
    assert case.said.count("NOTE") == case.said.count("the host lost 0.1 s (overrun) [host.gap]") == 1
    assert case.read("--strict", keys=False) == 0, case.said


@pytest.mark.parametrize("name", writer.LOSSES)
def test_a_declared_loss_is_a_note_and_strict_makes_it_false(evidence: Write, name: str) -> None:
    """Breaks: an honest loss makes evidence worthless, or goes by unsaid."""
    case = evidence(writer.LOSSES[name])
    assert case.read() == 0, case.said
    assert "NOTE " in case.said
    assert case.read("--strict") == 3


def test_every_seal_is_read_and_linked(evidence: Write) -> None:
    """Breaks: a correction of a seal cannot be followed back to the first."""
    case = evidence(Plan(steps(1), seals=3))
    assert case.read() == 0, case.said
    case.file("manifests/2.dsse.json").unlink()
    assert case.read() == 3
    assert case.codes == {"manifest.missing", "manifest.link"}


def test_a_large_index_spans_chunks(evidence: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: sessions with more rows than one index chunk holds cannot be read."""
    monkeypatch.setattr(writer, "MAX_INDEX_PLAIN", 2600)
    monkeypatch.setattr(reader_keyed, "MAX_INDEX_PLAIN", 2600)
    case = evidence(Plan(steps()))
    assert len(case.copy.manifest["index"]) > 2
    assert case.read() == 0, case.said
    monkeypatch.setattr(reader_keyed, "MAX_INDEX_PLAIN", 5000)
    assert case.read() == 3
    assert "index.cut" in case.codes


def test_an_unlisted_signer_is_neither_true_nor_false(evidence: Write) -> None:
    """Breaks: a stranger's signature counts, or honest evidence is called false for it."""
    case = evidence(TINY)
    for trust in (
        writer.trust_file(signers=("another",)),
        writer.trust_file(signers=(), hosts=("host", "signer")),
        writer.trust_file(revoked=frozenset({"signer"})),
        writer.trust_file(until_us=case.copy.manifest["sealed_us"]),
    ):
        assert case.read(trust=trust) == 9
        assert case.read("--strict", trust=writer.trust_file(signers=("another",))) == 9
    assert case.read(trust=writer.trust_file(until_us=case.copy.manifest["sealed_us"] + 1)) == 0


def test_an_older_seal_needs_a_listed_signer_too(evidence: Write) -> None:
    """Breaks: a stranger's first seal hides behind an honest second one."""
    case = evidence(Plan(steps(1), seals=2))
    assert case.read(trust=writer.trust_file(until_us=case.copy.manifest["sealed_us"])) == 9
    assert "seal 2" in case.said
    assert "seal 1" not in case.said


def test_an_unlisted_host_is_neither_true_nor_false(evidence: Write) -> None:
    """Breaks: an unknown machine's recording is called true."""
    case = evidence(TINY)
    for trust in (
        writer.trust_file(hosts=()),
        writer.trust_file(host_name="another"),
        writer.trust_file(revoked=frozenset({"host"})),
    ):
        assert case.read(trust=trust) == 9
        assert "[host.unlisted]" in case.said
        assert "TRUE" not in case.said


def test_an_unusable_trust_file_is_a_usage_error_before_all_findings(evidence: Write) -> None:
    """Breaks: evidence is judged by a trust file nobody vouches for."""
    case = evidence(TINY)
    case.file("chunks/0000000000").unlink()
    good = writer.trust_file()
    root = fingerprint(signing("root")[1])
    assert case.read("--root", root) == 3
    assert case.read("--root", "00" * 32) == 2
    assert case.read(now_us=writer.FAR_US) == 2
    for place in range(0, len(good), 7):
        broken = bytearray(good)
        broken[place] ^= 1
        assert case.read(trust=bytes(broken)) == 2, place
    case.trust.unlink()
    assert case.read() == 2


def test_the_root_is_printed_when_none_was_given(evidence: Write) -> None:
    """Breaks: a reader cannot compare the root by telephone."""
    case = evidence(TINY)
    case.read()
    assert fingerprint(signing("root")[1]) in case.said
    case.read("--root", fingerprint(signing("root")[1]))
    assert "INFO trust root" not in case.said


def test_wrong_use_is_a_usage_error(evidence: Write, tmp_path: Path) -> None:
    """Breaks: a script takes a typing mistake for a verdict."""
    case = evidence(TINY)
    assert case.read("--keys", str(tmp_path / "absent")) == 4
    assert case.read("--frobnicate") == 2
    assert case.read("--out", str(tmp_path)) == 2
    assert case.read("--out", str(case.out), keys=False) == 2
    for name in ("chunks/.DS_Store", "manifests/x", "README"):
        case.file(name).write_bytes(b"")
    assert case.read() == 0
    assert case.said.count("[unsealed]") == 3
    assert case.read("--strict") == 3
    case.file("manifests/1.dsse.json").unlink()
    assert case.read() == 2
    case.folder.rename(tmp_path / "elsewhere")
    assert case.read() == 4


def test_it_runs_as_a_program(evidence: Write) -> None:
    """Breaks: the command the documentation shows does not work."""
    case = evidence(TINY)
    program = Path(__file__).with_name("reader.py")
    command = [sys.executable, str(program), str(case.folder), "--trust", str(case.trust)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("TRUE demo-01")
