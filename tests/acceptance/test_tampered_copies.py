"""Evidence that someone had in hands: what is said, where, and with which exit status."""

import base64
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import rfc8785
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.support.program.installation import Done, Json, at_once, lucid, read_independently, running

FALSE, UNKNOWN_SIGNER, USAGE, DENIED = 3, 9, 2, 6
MANIFEST = "manifests/1.dsse.json"
Tamper = Callable[[Path, Path], None]
"""Change the copy in the first folder; the second holds a copy of another session of the same host."""


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two evidence copies, `old` and `new`, their keys, and the trust file; nothing runs any more."""
    folder = tmp_path_factory.mktemp("shelf")
    with running(folder / "data") as system:
        for name in ("old", "new"):
            plain = folder / f"{name}.plain"  # a file: what a pipe gives at once differs, and so do chunks
            plain.write_bytes(hashlib.shake_256(name.encode()).digest(700_000))
            assert system.record(plain, name, CHUNK_SIZE_MB="0.25")["recorded"] >= 3
            system.json("export", name, "--evidence", folder / name, "--with-keys")
            (folder / name / "keys.json").rename(folder / f"{name}.keys.json")
        system.json("export", "--trust-file", folder / "trust.json")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def copies(shelf: Path, tmp_path: Path) -> Path:
    """A shelf of one's own."""
    for name in ("old", "new"):
        shutil.copytree(shelf / name, tmp_path / name)
    for name in ("old.keys.json", "new.keys.json", "trust.json"):
        shutil.copy(shelf / name, tmp_path)
    return tmp_path


def verify(copies: Path, *arguments: str | Path) -> Done:
    asked = ("verify", copies / "new", "--json", *arguments)
    return lucid(*asked, data=copies / "no-data", cwd=copies)


def flip(path: Path, at: int = -1, bit: int = 1) -> None:
    """One bit of one byte."""
    raw = bytearray(path.read_bytes())
    raw[at] ^= bit
    path.write_bytes(raw)


def chunk(copy: Path, index: int) -> Path:
    return copy / "chunks" / f"{index:010}"


def a_bit_of_a_chunk(new: Path, _: Path) -> None:
    flip(chunk(new, 1))


def a_bit_of_a_header(new: Path, _: Path) -> None:
    flip(chunk(new, 2), at=40)


def a_chunk_is_missing(new: Path, _: Path) -> None:
    chunk(new, 1).unlink()


def a_chunk_is_added(new: Path, _: Path) -> None:
    shutil.copy(chunk(new, 0), chunk(new, 99))


def a_chunk_is_cut(new: Path, _: Path) -> None:
    chunk(new, 0).write_bytes(chunk(new, 0).read_bytes()[:-1])


def two_chunks_are_swapped(new: Path, _: Path) -> None:
    chunk(new, 0).rename(new / "held")
    chunk(new, 1).rename(chunk(new, 0))
    (new / "held").rename(chunk(new, 1))


def a_chunk_of_another_session(new: Path, old: Path) -> None:
    shutil.copy(chunk(old, 1), chunk(new, 1))


def a_bit_of_the_manifest(new: Path, _: Path) -> None:
    flip(new / MANIFEST, at=400)


def an_old_manifest_with_new_chunks(new: Path, old: Path) -> None:
    shutil.copy(old / MANIFEST, new / MANIFEST)
    shutil.copy(old / "history.ndjson", new / "history.ndjson")


def the_history_of_another_session(new: Path, old: Path) -> None:
    shutil.copy(old / "history.ndjson", new / "history.ndjson")


def the_history_is_cut(new: Path, _: Path) -> None:
    lines = (new / "history.ndjson").read_bytes().splitlines(keepends=True)
    (new / "history.ndjson").write_bytes(b"".join(lines[:2]))


def another_s_signature_under_the_same_words(new: Path, _: Path) -> None:
    resign(new, Ed25519PrivateKey.generate(), lambda payload: payload)


@pytest.mark.parametrize(
    ("tamper", "code", "place"),
    [
        (a_bit_of_a_chunk, "chunk.digest", "chunks/0000000001"),
        (a_bit_of_a_header, "chunk.digest", "chunks/0000000002"),
        (a_chunk_is_missing, "chunk.missing", "chunks/0000000001"),
        (a_chunk_is_added, "chunk.unnamed", "chunks/0000000099"),
        (a_chunk_is_cut, "chunk.length", "chunks/0000000000"),
        (two_chunks_are_swapped, "chunk.", "chunks/0000000000"),
        (a_chunk_of_another_session, "chunk.", "chunks/0000000001"),
        (a_bit_of_the_manifest, "manifest.", MANIFEST),
        (an_old_manifest_with_new_chunks, "chunk.", "chunks/0000000000"),
        (the_history_of_another_session, "history.", "history line"),
        (the_history_is_cut, "history.digest", "history"),
        (another_s_signature_under_the_same_words, "manifest.", MANIFEST),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_was_changed_is_found_and_named(tamper: Tamper, code: str, place: str, copies: Path) -> None:
    """Breaks: evidence is changed and nobody is told, or nobody is told where."""
    tamper(copies / "new", copies / "old")
    trusted = ("--trust", copies / "trust.json")
    said, read = at_once(
        partial(verify, copies, *trusted),
        partial(read_independently, copies / "new", *trusted, cwd=copies),
    )
    assert (said.status, said.json["verdict"], said.json["exit_code"]) == (FALSE, "false", FALSE), str(said)
    found = [(finding["code"], finding["place"]) for finding in said.json["findings"]]
    assert any(at.startswith(place) and name.startswith(code) for name, at in found), found
    assert read.status == FALSE, str(read)


def test_swapped_chunks_are_two_findings_and_people_are_told(copies: Path) -> None:
    """Breaks: of a pair that was exchanged only one half is named, or only to programs."""
    two_chunks_are_swapped(copies / "new", copies / "old")
    trusted = ("--trust", copies / "trust.json", "--keys", copies / "new.keys.json")
    told = lucid("verify", copies / "new", *trusted, data=copies / "no-data", cwd=copies)
    assert told.status == FALSE
    assert [name in told.out for name in ("0000000000 ", "0000000001 ", "0000000002 ")] == [True, True, False]
    assert "[chunk.digest]" in told.out.splitlines()[-1]
    assert "is true" not in told.out


def test_a_forger_with_a_key_of_his_own_is_a_stranger(copies: Path) -> None:
    """Breaks: whoever can write a whole manifest can pass for the installation."""
    forger = Ed25519PrivateKey.generate()
    public = forger.public_key().public_bytes_raw()
    history = copies / "new" / "history.ndjson"
    lines = history.read_bytes().splitlines(keepends=True)

    def forge(payload: Json) -> Json:
        last = payload["lifecycle"]["last"]
        lines[last - 1] = rfc8785.dumps(
            {**json.loads(lines[last - 1]), "signer": blake3(public).hexdigest()}
        ) + b"\n"  # fmt: skip
        history.write_bytes(b"".join(lines))
        payload["lifecycle"]["digest"] = blake3(b"".join(lines[:last])).hexdigest()
        payload["signer"]["key"] = public.hex()
        return payload

    resign(copies / "new", forger, forge)
    said = verify(copies, "--trust", copies / "trust.json", "--keys", copies / "new.keys.json")
    assert (said.status, said.json["verdict"]) == (UNKNOWN_SIGNER, "signer_unknown"), str(said)
    assert said.json["findings"] == []
    read = read_independently(copies / "new", "--trust", copies / "trust.json", cwd=copies)
    assert read.status == UNKNOWN_SIGNER


def test_without_its_manifest_a_copy_is_no_evidence(copies: Path) -> None:
    """Breaks: what cannot be checked is called false, or true."""
    (copies / "new" / MANIFEST).unlink()
    said = verify(copies, "--trust", copies / "trust.json")
    assert (said.status, said.json["code"]) == (USAGE, "evidence.none"), str(said)
    read = read_independently(copies / "new", "--trust", copies / "trust.json", cwd=copies)
    assert read.status == USAGE


def test_a_key_file_that_does_not_fit_is_no_verdict(copies: Path) -> None:
    """Breaks: contents count as checked although nothing was opened, or true evidence is called false."""
    trusted = ("--trust", copies / "trust.json")
    wrong = verify(copies, *trusted, "--keys", copies / "old.keys.json")
    assert (wrong.status, wrong.json["code"]) == (DENIED, "keys.unfit")
    for garbage in (b"", b'{"dek":' * 400):
        (copies / "garbage").write_bytes(garbage)
        said = verify(copies, *trusted, "--keys", copies / "garbage")
        assert (said.status, said.json["code"]) == (DENIED, "keys.malformed"), str(said)
    out = lucid(
        "export", copies / "new", "--keys", copies / "old.keys.json", "--out", copies / "out",
        data=copies, cwd=copies,
    )  # fmt: skip
    assert out.status == 6, str(out)
    assert not (copies / "out").exists()


def test_a_trust_file_that_cannot_be_used_is_no_verdict(copies: Path) -> None:
    """Breaks: without a root of trust something is said all the same."""
    flip(copies / "trust.json", at=300)
    for trust in (copies / "trust.json", copies / "nowhere", copies / "new.keys.json"):
        said = verify(copies, "--trust", trust)
        assert (said.status, said.json["code"][:6]) == (USAGE, "trust."), str(said)


def test_changed_bytes_are_not_exported(copies: Path) -> None:
    """Breaks: a damaged recording is handed out as the original."""
    a_bit_of_a_chunk(copies / "new", copies / "old")
    asked = ("export", copies / "new", "--keys", copies / "new.keys.json", "--out", copies / "out")
    said = lucid(*asked, "--json", data=copies / "no-data", cwd=copies)
    assert (said.status, said.json["code"]) == (FALSE, "chunk.digest"), str(said)
    assert not (copies / "out").exists()


def resign(copy: Path, key: Ed25519PrivateKey, change: Callable[[Json], Json]) -> None:
    """Replace the manifest by what `change` makes of it, signed by `key`."""
    envelope = json.loads((copy / MANIFEST).read_bytes())
    payload = rfc8785.dumps(change(json.loads(base64.b64decode(envelope["payload"]))))
    kind = envelope["payloadType"].encode()
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    envelope["payload"] = base64.b64encode(payload).decode()
    envelope["signatures"] = [
        {
            "keyid": blake3(key.public_key().public_bytes_raw()).hexdigest(),
            "sig": base64.b64encode(key.sign(signed)).decode(),
        }
    ]
    (copy / MANIFEST).write_bytes(rfc8785.dumps(envelope))


def test_a_damaged_chunk_of_the_installation_is_told_with_its_cure(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Breaks: a disk rots, and who asks is told neither that nor what helps."""
    folder = tmp_path_factory.mktemp("rotten")
    with running(folder / "data") as system:
        said = system.record("-", "rotten", stdin=bytes(range(256)) * 3000, CHUNK_SIZE_MB="0.25")
        flip(folder / "data" / "chunks" / said["uid"] / "0000000000")
        told = system("verify", "rotten")
        assert told.status == FALSE
        assert "[chunk.digest]" in told.out
        assert "lucid replay rotten" in told.out
        assert system("export", "rotten", "--out", folder / "out").status == FALSE
    shutil.rmtree(folder)
