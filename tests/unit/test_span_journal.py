"""What infra.telemetry.span_journal promises."""

import os
from pathlib import Path

import pytest

from infra.telemetry import span_journal
from infra.telemetry.span_journal import MOST_BYTES, TURN_BYTES, SpanJournal, take_over

RESOURCE = {"service.name": "lucid-worker"}


def killed(journal: SpanJournal) -> None:
    """What the kernel does with the files of a process that is killed."""
    for file in journal._files:
        os.close(file.fd)


def names(folder: Path) -> list[object]:
    return [line[0] for _, line in take_over(folder)]


def test_spans_of_a_killed_process_are_taken_over_once(tmp_path: Path) -> None:
    """Breaks: a worker that is killed leaves holes in the traces of its chunks."""
    journal = SpanJournal(tmp_path, RESOURCE)
    for number in range(3):
        journal.add([f"span {number}", {"n": number}])
    assert take_over(tmp_path) == []  # it lives
    killed(journal)
    assert take_over(tmp_path) == [(RESOURCE, [f"span {n}", {"n": n}]) for n in range(3)]
    assert list(tmp_path.iterdir()) == []


def test_exported_spans_are_forgotten(tmp_path: Path) -> None:
    """Breaks: after a crash spans of hours ago are exported again."""
    journal = SpanJournal(tmp_path, RESOURCE)
    journal.forget(journal.add(["exported"]))
    journal.add(["waits"])
    killed(journal)
    assert names(tmp_path) == ["waits"]


def test_a_long_wait_costs_bounded_space_and_keeps_the_newest_turn(tmp_path: Path) -> None:
    """Breaks: a server that is away fills the disk with spans."""
    journal, text = SpanJournal(tmp_path, RESOURCE), "x" * 1000
    for number in range(2 * MOST_BYTES // 1000):
        journal.add([number, text])
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2 * (MOST_BYTES + 2000)


def test_under_load_two_files_take_turns(tmp_path: Path) -> None:
    """Breaks: a busy process, whose exporter is always a little behind, never forgets a span."""
    journal, text = SpanJournal(tmp_path, RESOURCE), "x" * 1000
    for number in range(4 * TURN_BYTES // 1000):
        journal.forget(journal.add([number, text]) - 1)
    newest = number
    killed(journal)
    found = names(tmp_path)
    assert newest in found
    assert len(found) < 3 * TURN_BYTES // 1000


def test_an_orderly_end_leaves_only_what_waits(tmp_path: Path) -> None:
    """Breaks: each verb leaves a file behind, or the spans that a hanging server did not take are lost."""
    journal = SpanJournal(tmp_path, RESOURCE)
    journal.forget(journal.add(["exported"]))
    journal.close()
    assert list(tmp_path.iterdir()) == []
    journal = SpanJournal(tmp_path, RESOURCE)
    journal.add(["waits"])
    journal.close()
    assert names(tmp_path) == ["waits"]


def test_a_torn_line_and_a_foreign_file_cost_only_themselves(tmp_path: Path) -> None:
    """Breaks: one half line of a killed process takes the spans before it away, or stops the next start."""
    journal = SpanJournal(tmp_path, RESOURCE)
    journal.add(["whole"])
    os.write(journal._files[0].fd, b'["half')
    killed(journal)
    (tmp_path / "foreign.spans").write_bytes(b"\xff\x00\n7\n")
    assert names(tmp_path) == ["whole"]


def test_a_disk_that_takes_no_line_costs_no_span(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: a full disk stops the export of traces, or the stage that ends a span."""
    journal = SpanJournal(tmp_path, RESOURCE)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(span_journal.os, "write", full)
    assert [journal.add([n]) for n in range(3)] == [1, 2, 3]
    journal.forget(3)
    journal.close()
