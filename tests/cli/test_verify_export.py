"""`lucid verify` and `lucid export` on copies: what they print, and what their exit status says."""

import errno
import hashlib
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from handlers.crypto.trust import build_trust
from schemas.format import dsse
from schemas.format.jcs import jcs
from schemas.format.trust import TrustKey
from streams.cli.main import main
from streams.cli.verbs import export
from streams.cli.verbs import verify as verb
from tests.support.evidence.recorded_session import ROOT, SIGNING, RecordedSession, trust
from tests.support.evidence.tombstones import tombstone

ROOT_PUBLIC = ROOT.public_key().public_bytes_raw()
ROOT_PRINT = dsse.fingerprint(ROOT_PUBLIC).hex()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sessions, one of them with a loss, each with keys.json and trust.json."""
    folder = tmp_path_factory.mktemp("written")
    for name, recorded in (("whole", RecordedSession()), ("lossy", RecordedSession(lost=(1,)))):
        (folder / name).mkdir()
        recorded.write(folder / name)
    return folder


@pytest.fixture
def here(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(written / "whole", tmp_path, dirs_exist_ok=True)
    shutil.copytree(written / "lossy", tmp_path / "lossy")
    monkeypatch.chdir(tmp_path)
    return tmp_path


Said = pytest.CaptureFixture[str]


def test_true_evidence_is_told_in_a_few_lines(here: Path, capsys: Said) -> None:
    """Breaks: people cannot see at a glance that evidence is true, and on what that rests."""
    assert main(["verify", "copy", "--trust", "trust.json", "--root", ROOT_PRINT]) == 0
    out, err = capsys.readouterr()
    manifest, chunks, history, word, more, verdict = out.splitlines()
    signer = dsse.fingerprint(SIGNING.public).hex()
    assert manifest.split("host chain")[0].split() == [
        "manifest",
        "ok",
        signer[:4],
        signer[4:8] + ",",
        "in",
        "trust.json",
    ]
    assert "ok 6 of 6, " in chunks
    assert "lines sealed" in history
    assert word.startswith("  on the signer's word: host.attested, ")
    assert more.endswith("contents")
    assert verdict.startswith("demo-01 is true: nothing changed since 20")
    assert err == ""
    assert out.isascii()
    assert max(len(line) for line in out.splitlines()) <= 80


@pytest.mark.parametrize(
    "name", ["t.json", "demo-01.trust.json", "a-trust-file-with-a-rather-long-name.json"]
)
def test_lines_fit_whatever_the_trust_file_is_called(here: Path, capsys: Said, name: str) -> None:
    """Breaks: a long name tears the table apart."""
    (here / name).write_bytes(trust())
    assert main(["verify", "copy", "--trust", name, "--root", ROOT_PRINT]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line == line.rstrip() and 0 < len(line) <= 80 for line in lines)


def test_without_root_the_whole_fingerprint_is_shown(here: Path, capsys: Said) -> None:
    """Breaks: nobody notices that the trust file is a stranger's."""
    assert main(["verify", "copy", "--trust", "trust.json"]) == 0
    err = capsys.readouterr().err
    assert err.splitlines()[1].replace(" ", "") == ROOT_PRINT
    assert main(["verify", "copy", "--trust", "trust.json", "--root", err.splitlines()[1]]) == 0


def test_a_flipped_bit_is_told_with_both_digests(here: Path, capsys: Said) -> None:
    """Breaks: people learn that something is wrong, and neither what nor where."""
    chunk = here / "copy" / "chunks" / "0000000002"
    raw = bytearray(chunk.read_bytes())
    raw[-1] ^= 1
    chunk.write_bytes(raw)
    assert main(["verify", "copy", "--trust", "trust.json"]) == 3
    what, digests, verdict = capsys.readouterr().out.splitlines()
    assert what == "  chunks     NO 0000000002 is not what was sealed; the other 5 are good"
    assert digests.split()[0::5] == ["sealed", "found"]
    assert verdict == "demo-01 is FALSE [chunk.digest]"


def test_one_good_chunk_is_told_as_one(here: Path, capsys: Said) -> None:
    """Breaks: who reads the verdict must guess what "the other 1 are" says."""
    for chunk in sorted((here / "copy" / "chunks").iterdir())[1:]:
        chunk.write_bytes(chunk.read_bytes()[:-1] + b"?")
    assert main(["verify", "copy", "--trust", "trust.json"]) == 3
    assert "; the other one is good" in " ".join(capsys.readouterr().out.split())


def test_json_holds_everything(here: Path, capsys: Said) -> None:
    """Breaks: a script cannot tell what is false, or reads another verdict than the exit status."""
    (here / "copy" / "chunks" / "0000000002").unlink()
    (here / "copy" / "history.ndjson").unlink()
    assert main(["verify", "copy", "--trust", "trust.json", "--json"]) == 3
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert (said["verdict"], said["exit_code"], said["session"]) == ("false", 3, "demo-01")
    assert [(f["code"], f["place"]) for f in said["findings"]] == [
        ("chunk.missing", "chunks/0000000002"),
        ("history.missing", "history"),
    ]
    assert said["root"] == ROOT_PRINT
    assert err == ""


def test_losses_are_notes_unless_strict(here: Path, capsys: Said) -> None:
    """Breaks: a loss is silent, or an honest loss stops every script."""
    assert main(["verify", "lossy/copy", "--trust", "trust.json", "--keys", "lossy/keys.json"]) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line.startswith("NOTE ") and line.endswith("[chunk.lost]")]
    assert "1 gap" in out
    assert "contents   ok opened, as signed" in out
    assert main(["verify", "lossy/copy", "--trust", "trust.json", "--strict"]) == 3
    assert "[chunk.lost]" in capsys.readouterr().out


def test_an_unknown_signer_is_exit_9(here: Path, capsys: Said) -> None:
    """Breaks: a stranger's evidence passes for the installation's."""
    lines = [
        TrustKey(key=bytes(range(32)), role="signer", name="x", from_us=0, until_us=2**52, revoked_us=0),
    ]
    raw = build_trust(lines, serial=1, issued_us=0, root=ROOT_PUBLIC, sign=ROOT.sign, life_us=2**52)
    (here / "other.json").write_bytes(raw)
    assert main(["verify", "copy", "--trust", "other.json"]) == 9
    out = capsys.readouterr().out
    assert "[signer.unlisted]" in out
    assert "is true" not in out


def test_a_trust_file_that_is_none_is_exit_2(here: Path, capsys: Said) -> None:
    """Breaks: without a root of trust something is said all the same."""
    (here / "expired.json").write_bytes(
        build_trust([], serial=1, issued_us=0, root=ROOT_PUBLIC, sign=ROOT.sign, life_us=1)
    )
    for arguments, code in (
        (["--trust", "none.json"], "trust.absent"),
        (["--trust", "."], "trust.absent"),
        (["--trust", "keys.json"], "trust.malformed"),
        (["--trust", "expired.json"], "trust.expired"),
        (["--trust", "trust.json", "--root", "00" * 32], "trust.root"),
        (["--trust", "trust.json", "--root", "zz"], "trust.root"),
        ([], "trust.absent"),
    ):
        assert main(["verify", "copy", *arguments]) == 2, arguments
        assert f"[{code}]" in capsys.readouterr().err


def test_a_key_that_does_not_fit_is_no_verdict(here: Path, capsys: Said) -> None:
    """Breaks: true evidence is called FALSE for a line end behind its key, or another session's key."""
    other = jcs({"uid": "0" * 32, "dek_id": "0" * 32, "dek": "0" * 64})
    good = (here / "keys.json").read_bytes()
    for raw, code in ((other, "keys.unfit"), (good + b"\n", "keys.malformed")):
        (here / "copy" / "keys.json").write_bytes(raw)
        (here / "wrong.json").write_bytes(raw)
        for arguments in ([], ["--keys", "wrong.json"]):
            assert main(["verify", "copy", "--trust", "trust.json", *arguments]) == 6
            said = capsys.readouterr()
            assert (said.out, f"[{code}]" in said.err) == ("", True)
    (here / "copy" / "keys.json").unlink()
    (here / "copy" / "keys.json").symlink_to(here / "keys.json")
    assert main(["verify", "copy", "--trust", "trust.json"]) == 4
    assert "[keys.unreadable]" in capsys.readouterr().err
    assert main(["verify", "copy", "--trust", "trust.json", "--keys", "none.json"]) == 4
    assert "[keys.absent]" in capsys.readouterr().err


def test_a_place_without_evidence_is_not_found(here: Path, capsys: Said) -> None:
    """Breaks: a typing error looks like a verdict."""
    assert main(["verify", "./nowhere", "--trust", "trust.json"]) == 4
    assert "[evidence.absent]" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["empty", "film.mp4", "manifest", "trust.json", "keys.json", "pipe", "copy"])
@pytest.mark.parametrize("verb", [["verify", "--trust", "trust.json"], ["export", "--evidence", "again"]])
def test_what_is_no_evidence_is_not_called_false(
    here: Path, capsys: Said, name: str, verb: list[str]
) -> None:
    """Breaks: a film, or a wrong folder, is FALSE, and a person is accused."""
    (here / "empty").mkdir()
    (here / "film.mp4").write_bytes(bytes(range(256)) * 9)
    os.mkfifo(here / "pipe")
    (here / "copy" / "manifests" / "1.dsse.json").rename(here / "manifest")
    assert main([verb[0], f"./{name}", *verb[1:]]) == 2
    said = capsys.readouterr()
    assert (said.out, "[evidence.none]" in said.err, "FALSE" in said.err) == ("", True, False)
    assert not (here / "again").exists()


def test_a_file_that_somebody_names_may_be_a_link(here: Path, capsys: Said) -> None:
    """Breaks: a trust file that is mounted as a link, as containers do, is refused."""
    for name in ("trust.json", "keys.json", "copy"):
        (here / f"linked-{name}").symlink_to(here / name)
    linked = ["linked-copy", "--trust", "linked-trust.json", "--keys", "linked-keys.json"]
    assert main(["verify", *linked]) == 0
    assert "opened, as signed" in capsys.readouterr().out


def test_a_stray_file_is_a_note_beside_the_verdict(here: Path, capsys: Said) -> None:
    """Breaks: who looked at a copy with a file manager has made it FALSE, or made somebody vouch for more."""
    for name in ("chunks/.DS_Store", "manifests/Thumbs.db", "README"):
        (here / "copy" / name).write_bytes(b"")
    assert main(["verify", "copy", "--trust", "trust.json"]) == 0
    out = capsys.readouterr().out
    assert out.count("[file.unsealed]") == 3
    assert "demo-01 is true" in out
    assert main(["verify", "copy", "--trust", "trust.json", "--strict"]) == 3
    assert "demo-01 is FALSE [file.unsealed] and 2 more" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["verify", ""], ["verify", "copy", "--trust", "trust.json", "--open"]])
def test_what_cannot_be_looked_at_has_no_verdict(here: Path, capsys: Said, arguments: list[str]) -> None:
    """Breaks: an unset variable gets a verdict; a copy is called true and was not opened as asked."""
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert (said.out, "[usage]" in said.err) == ("", True)


def test_a_tombstone_is_verified_like_evidence(here: Path, capsys: Said) -> None:
    """Breaks: nobody can prove that a recording was destroyed, and on whose word."""
    signer = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
    good = tombstone(signer)
    (here / "stone.json").write_bytes(good)
    assert main(["verify", "stone.json", "--trust", "trust.json"]) == 0
    said = capsys.readouterr()
    assert "approved by bob" in said.out
    assert "no backups are named" in said.out
    assert said.err.splitlines()[1].replace(" ", "") == ROOT_PRINT
    for place in range(0, len(good), 7):
        broken = bytearray(good)
        broken[place] ^= 1
        (here / "stone.json").write_bytes(broken)
        assert main(["verify", "stone.json", "--trust", "trust.json", "--json"]) in (3, 9)
        assert json.loads(capsys.readouterr().out)["verdict"] != "true"
    (here / "stone.json").write_bytes(tombstone(Ed25519PrivateKey.generate()))
    assert main(["verify", "stone.json", "--trust", "trust.json"]) == 9


def test_the_original_bytes_come_back_with_their_sha256(here: Path, written: Path, capsys: Said) -> None:
    """Breaks: what is exported is not what was recorded, or nobody can tell."""
    recorded = RecordedSession()
    assert main(["export", "copy", "--keys", "keys.json", "--out", "out.bin"]) == 0
    told = capsys.readouterr()
    plain = (here / "out.bin").read_bytes()
    assert told.out == f"{hashlib.sha256(plain).hexdigest()}  out.bin\n"
    assert plain == recorded.plain(0)
    for part in ("0", "1"):
        assert main(["export", "copy", "--keys", "keys.json", "--out", f"part{part}", "--part", part]) == 0
    assert (here / "part0").read_bytes() + (here / "part1").read_bytes() == plain
    assert main(["export", "copy", "--keys", "keys.json", "--out", "events", "--track", "1", "--json"]) == 0
    assert (here / "events").read_bytes() == recorded.plain(1)


def test_output_that_takes_less_than_it_is_given_gets_everything() -> None:
    """Breaks: unbuffered, `export --out -` ends well and has written half of the recording."""

    class Unbuffered(io.RawIOBase):
        written = b""

        def write(self, data: Any) -> int:
            self.written += bytes(data[:3])
            return min(3, len(data))

    file = Unbuffered()
    size, digest = export._write_all(iter([b"", b"0123456789", b"ab"]), cast(BinaryIO, file))
    assert (file.written, size) == (b"0123456789ab", 12)
    assert digest == hashlib.sha256(file.written).hexdigest()


def test_changed_bytes_are_never_exported(here: Path, capsys: Said) -> None:
    """Breaks: a damaged recording is handed out as the original."""
    chunk = max((here / "copy" / "chunks").iterdir(), key=lambda path: path.stat().st_size)
    raw = bytearray(chunk.read_bytes())
    raw[-1] ^= 1
    chunk.write_bytes(raw)
    assert main(["export", "copy", "--keys", "keys.json", "--out", "out.bin"]) == 3
    assert "[chunk.digest]" in capsys.readouterr().err
    chunk.unlink()
    assert main(["export", "copy", "--keys", "keys.json", "--out", "out.bin"]) == 3
    assert "[chunk.missing]" in capsys.readouterr().err
    assert not [path for path in here.iterdir() if "out.bin" in path.name]


def test_a_root_without_its_trust_file_is_not_passed_over(here: Path, capsys: Said) -> None:
    """Breaks: who names a root for a session here believes that it was compared."""
    for target in ("demo-01", "copy", "./copy"):
        assert main(["verify", target, "--root", ROOT_PRINT]) == 2
        assert "give --trust FILE" in capsys.readouterr().err


def test_what_cannot_be_read_is_named_and_no_bug(
    here: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: who names a folder, or a file of somebody else, reads a stack trace."""
    assert main(["export", "--trust-file", "copy"]) == 2
    assert "copy cannot be replaced: it is not a regular file" in capsys.readouterr().err

    def refuse(path: Path, limit: int, *, links: bool) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(verb, "read_bounded", refuse)
    assert main(["verify", "copy", "--trust", "trust.json"]) == 2
    monkeypatch.setattr(verb, "load_trust", lambda *_: None)
    assert main(["verify", "./keys.json", "--trust", "trust.json"]) == 4
    assert "keys.json cannot be read: Permission denied" in capsys.readouterr().err


def test_missing_fragments_are_told_when_bytes_are_exported(here: Path, capsys: Said) -> None:
    """Breaks: a recording with a hole is taken for a whole one."""
    assert main(["export", "lossy/copy", "--keys", "lossy/keys.json", "--out", "out.bin"]) == 0
    assert "of it are missing" in capsys.readouterr().err


def test_nothing_is_overwritten_and_nothing_is_guessed(here: Path, capsys: Said) -> None:
    """Breaks: an export destroys a file, or does something that nobody asked for."""
    (here / "out.bin").write_text("mine")
    assert main(["export", "copy", "--keys", "keys.json", "--out", "out.bin"]) == 2
    assert (here / "out.bin").read_text() == "mine"
    for arguments in (
        [],
        ["copy"],
        ["--out", "x"],
        ["copy", "--out", "-", "--json"],
        ["copy", "--out", "x", "--track", "2"],
    ):
        assert main(["export", *arguments]) == 2, arguments
    assert main(["export", "copy", "--out", "x"]) == 2
    assert "[keys.needed]" in capsys.readouterr().err
    assert main(["export", "copy", "--keys", "none.json", "--out", "x"]) == 4
    assert main(["export", "copy", "--keys", "keys.json", "--out", "x", "--part", "9"]) == 4
    (here / "bad.json").write_text("{}")
    assert main(["export", "copy", "--keys", "bad.json", "--out", "x"]) == 6


def test_a_copy_of_a_copy_is_true(here: Path, capsys: Said) -> None:
    """Breaks: evidence that was handed on is false."""
    assert main(["export", "copy", "--evidence", "again", "--keys", "keys.json", "--with-keys"]) == 0
    assert main(["verify", "again", "--trust", "trust.json"]) == 0
    assert "opened, as signed" in capsys.readouterr().out
    assert (here / "trust.json").read_bytes() == trust()
