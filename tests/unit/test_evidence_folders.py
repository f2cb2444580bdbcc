"""Evidence on disk: whole under its name or not there, and reading takes no harm from what lies there."""

import contextlib
import errno
import os
import socket
from pathlib import Path

import pytest

from handlers.verify.session import verify
from infra.disk import durable, evidence_copy
from infra.disk.durable import new_file, new_folder
from infra.disk.evidence_copy import copy_at, read_bounded, stored_at, write_copy
from schemas.errors import EvidenceFalse, LucidError, Misuse, NoSpace, Unreadable
from streams.cli import output
from tests.support.evidence.evidence_case import Case, trusted
from tests.support.evidence.recorded_session import RecordedSession


@pytest.fixture(scope="module")
def case() -> Case:
    return Case(RecordedSession(fragments=4))


def test_a_copy_holds_what_the_store_holds(case: Case, tmp_path: Path) -> None:
    """Breaks: a copy of true evidence is false, or says less."""
    written = write_copy(case.held, tmp_path / "copy")
    files = [path for path in (tmp_path / "copy").rglob("*") if path.is_file()]
    assert written == sum(path.stat().st_size for path in files)
    assert not (tmp_path / "copy" / "keys.json").exists()
    assert verify(copy_at(tmp_path / "copy"), trusted()).exit_code == 0
    assert list(tmp_path.iterdir()) == [tmp_path / "copy"]


def test_a_copy_of_a_copy_is_the_same_bytes(case: Case, tmp_path: Path) -> None:
    """Breaks: evidence changes by being handed on."""
    write_copy(case.held, tmp_path / "a", keys=case.keys)
    write_copy(copy_at(tmp_path / "a"), tmp_path / "b", keys=case.keys)

    def told(folder: Path) -> dict[str, bytes]:
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    assert told(tmp_path / "a") == told(tmp_path / "b")


def test_the_installations_own_store_is_read_like_a_copy(case: Case, tmp_path: Path) -> None:
    """Breaks: what is in the store can only be checked after it was exported."""
    write_copy(case.held, tmp_path / "copy")
    uid = case.recorded.uid
    (tmp_path / "manifests").mkdir()
    (tmp_path / "chunks").mkdir()
    (tmp_path / "copy" / "manifests").rename(tmp_path / "manifests" / uid.hex())
    (tmp_path / "copy" / "chunks").rename(tmp_path / "chunks" / uid.hex())
    seal = tmp_path / "manifests" / uid.hex() / "1.dsse.json"
    seal.rename(seal.with_name("1"))
    assert case.held.lines is not None
    stored = stored_at(tmp_path / "manifests", tmp_path / "chunks", uid, case.held.lines)
    assert verify(stored, trusted()).exit_code == 0


def test_a_copy_never_overwrites(case: Case, tmp_path: Path) -> None:
    """Breaks: exporting destroys another session's evidence."""
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "note.txt").write_text("mine")
    with pytest.raises(Misuse, match=r"export\.exists"):
        write_copy(case.held, tmp_path / "copy")
    assert [path.name for path in tmp_path.rglob("*")] == ["copy", "note.txt"]


def test_a_copy_that_fails_half_way_is_not_there(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: half a copy lies under the name of a whole one."""
    left = iter(range(3))

    def full(path: Path, data: bytes) -> int:
        if next(left, None) is None:
            raise OSError(28, "No space left on device")
        return durable.write_file(path, data)

    monkeypatch.setattr(evidence_copy, "write_file", full)
    with pytest.raises(NoSpace, match=r"export\.space"):
        write_copy(case.held, tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


def test_a_session_without_a_seal_is_not_exported(case: Case, tmp_path: Path) -> None:
    """Breaks: a copy without a manifest looks like evidence."""
    unsealed = case.again()
    unsealed.held.manifests.clear()
    with pytest.raises(EvidenceFalse, match=r"manifest\.missing"):
        write_copy(unsealed.held, tmp_path / "copy")


def test_what_is_no_plain_file_is_not_read(case: Case, tmp_path: Path) -> None:
    """Breaks: a pipe in an evidence copy stops the verifier, a link makes it read other files."""
    write_copy(case.held, tmp_path / "copy")
    chunk = tmp_path / "copy" / "chunks" / "0000000000"
    good = chunk.read_bytes()
    (tmp_path / "elsewhere").write_bytes(good)

    for make in (
        lambda: os.mkfifo(chunk),
        lambda: chunk.mkdir(),
        lambda: chunk.symlink_to(tmp_path / "elsewhere"),
        lambda: chunk.symlink_to(tmp_path / "nowhere"),
        lambda: listening(chunk),
    ):
        chunk.rmdir() if chunk.is_dir() else chunk.unlink()
        make()
        with pytest.raises(Unreadable, match="is not a regular file"):
            verify(copy_at(tmp_path / "copy"), trusted())


def listening(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as at:
        at.bind(path.name)


@pytest.mark.parametrize("name", ["manifests", "chunks"])
def test_a_folder_that_is_a_link_is_not_followed(case: Case, tmp_path: Path, name: str) -> None:
    """Breaks: a copy is called true, and what was read lies elsewhere and may be other files tomorrow."""
    copy = tmp_path / "copy"
    write_copy(case.held, copy)
    (copy / name).rename(tmp_path / "elsewhere")
    (copy / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unreadable, match="is not a folder"):
        verify(copy_at(copy), trusted())
    (copy / name).unlink()
    (copy / name).write_bytes(b"")
    with pytest.raises(Unreadable, match="is not a folder"):
        verify(copy_at(copy), trusted())


@pytest.mark.parametrize("name", ["manifests/1.dsse.json", "chunks/0000000001", "history.ndjson"])
def test_what_cannot_be_read_is_neither_true_nor_false(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Breaks: a file without permission, or a bad sector, makes true evidence FALSE."""
    copy = tmp_path / "copy"
    write_copy(case.held, copy)
    (copy / "chunks" / "0000000000").write_bytes(b"what is false besides is not told then")
    opened = os.open

    def refuse(path: "str | Path", *rest: int, **more: int | None) -> int:
        if Path(path).name == Path(name).name:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return opened(path, *rest, **more)

    monkeypatch.setattr(evidence_copy.os, "open", refuse)
    with pytest.raises(Unreadable, match=rf"{name} cannot be read: Input/output error"):
        verify(copy_at(copy), trusted(), keys=case.keys)


@pytest.mark.parametrize("left", [(), ("chunks",), ("manifests",), ("manifests", "chunks")])
def test_a_folder_without_a_manifest_is_no_evidence(tmp_path: Path, left: tuple[str, ...]) -> None:
    """Breaks: a wrong folder is called FALSE, and somebody is accused."""
    for name in left:
        (tmp_path / name).mkdir()
        (tmp_path / name / "README").touch()
    with pytest.raises(Misuse, match=r"evidence\.none"):
        copy_at(tmp_path)


def test_a_copy_may_be_named_by_a_link(case: Case, tmp_path: Path) -> None:
    """Breaks: who keeps copies on another disk, behind a link, cannot verify them."""
    write_copy(case.held, tmp_path / "copy")
    (tmp_path / "link").symlink_to(tmp_path / "copy")
    assert verify(copy_at(tmp_path / "link"), trusted()).exit_code == 0


def test_strange_names_are_found(case: Case, tmp_path: Path) -> None:
    """Breaks: evidence carries passengers that no manifest knows."""
    write_copy(case.held, tmp_path / "copy")
    strays = (
        "0000000000.tmp",
        "٠٠٠٠٠٠٠٠٠٠",
        ".DS_Store",
        "0000000001 (1)",
        b"\xff\xfe".decode(errors="surrogateescape"),
    )
    names = ("1", "00000000000", "0000009999")
    for name in (*strays, *names):
        (tmp_path / "copy" / "chunks" / name).write_bytes(b"")
    for name in ("01.dsse.json", "0.dsse.json", "1234567890.dsse.json", "1.dsse.json~", "x"):
        (tmp_path / "copy" / "manifests" / name).write_bytes(b"")
    (tmp_path / "copy" / "receipts").mkdir()
    report = verify(copy_at(tmp_path / "copy"), trusted())
    codes = [finding.code for finding in report.findings]
    assert codes.count("chunk.unnamed") == len(names)
    assert codes.count("manifest.unnamed") == 3
    assert [note.code for note in report.notes].count("file.unsealed") == len(strays) + 2 + 1
    assert all(finding.place.isascii() for finding in (*report.findings, *report.notes))


def test_reading_takes_no_more_than_it_was_told(tmp_path: Path) -> None:
    """Breaks: a huge file in an evidence copy fills the memory."""
    path = tmp_path / "big"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert read_bounded(path, 1000) == bytes(1001)
    assert read_bounded(tmp_path / "none", 10) is None


def test_a_line_without_end_is_read_in_pieces(case: Case, tmp_path: Path) -> None:
    """Breaks: one endless line of history fills the memory."""
    write_copy(case.held, tmp_path / "copy")
    with (tmp_path / "copy" / "history.ndjson").open("ab") as file:
        file.truncate(1 << 32)
    report = verify(copy_at(tmp_path / "copy"), trusted())
    assert {finding.code for finding in report.findings} == {"history.malformed"}


def write_half(path: Path) -> None:
    with new_file(path) as file:
        file.write(b"half")
        raise ZeroDivisionError


def test_a_new_file_is_whole_or_not_there(tmp_path: Path) -> None:
    """Breaks: an export that was interrupted looks like a complete recording."""
    with pytest.raises(ZeroDivisionError):
        write_half(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    with new_file(tmp_path / "out") as file:
        file.write(b"whole")
    with pytest.raises(Misuse, match=r"export\.exists"), new_file(tmp_path / "out") as file:
        file.write(b"other")
    assert (tmp_path / "out").read_bytes() == b"whole"
    with new_file(tmp_path / "out", replace=True) as file:
        file.write(b"other")
    assert (tmp_path / "out").read_bytes() == b"other"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_name_that_was_taken_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    """Breaks: two exports at once leave a mixture, or one destroys the other."""
    with pytest.raises(Misuse, match=r"export\.exists"), new_file(tmp_path / "out"):
        (tmp_path / "out").write_bytes(b"first")
    with pytest.raises(Misuse, match=r"export\.exists"), new_folder(tmp_path / "copy"):
        (tmp_path / "copy" / "x").mkdir(parents=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "out"]


def test_a_place_that_cannot_be_written_is_a_plain_error(tmp_path: Path) -> None:
    """Breaks: a wrong path ends in a traceback."""
    (tmp_path / "file").touch()
    for target in (tmp_path / "file" / "below", tmp_path / ("n" * 300)):
        with pytest.raises(LucidError), new_file(target):
            pass
        with pytest.raises(LucidError), new_folder(target):
            pass


def test_a_folder_that_was_removed_is_no_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: an export out of a folder that somebody removed meanwhile ends in a stack trace."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here").rmdir()
    for make in (new_file, new_folder):
        with pytest.raises(LucidError, match=r"export\.io"), make(Path("out")):
            pass
    assert output.short_path(Path("/elsewhere")) == "/elsewhere"
    monkeypatch.chdir(tmp_path)
