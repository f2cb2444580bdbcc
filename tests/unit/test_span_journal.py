"""What infra.telemetry.span_journal promises."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from infra.telemetry import span_journal
from infra.telemetry.span_journal import MOST_BYTES, TURN_BYTES, SpanJournal, take_over

RESOURCE = {"service.name": "lucid-worker"}


class Journal(SpanJournal):
    """A journal that gets one span at a time."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, RESOURCE)
        self.number = 0

    def note(self, line: Sequence[object]) -> bool:
        self.number += 1
        return self.add([line], self.number)


def killed(journal: Journal) -> None:
    """What the kernel does with the files of a process that is killed."""
    for file in journal._files:
        os.close(file.fd)


def left_in(folder: Path) -> list[tuple[object, object]]:
    found: list[tuple[object, object]] = []

    def give(resource: object, line: object) -> bool:
        found.append((resource, line))
        return True

    take_over(folder, give)
    return found


def names(folder: Path) -> list[object]:
    return [line[0] for _, line in left_in(folder) if isinstance(line, list)]


def test_spans_of_a_killed_process_are_taken_over_once(tmp_path: Path) -> None:
    """Breaks: a worker that is killed leaves holes in the traces of its chunks."""
    journal = Journal(tmp_path)
    for number in range(3):
        journal.note([f"span {number}", {"n": number}])
    assert left_in(tmp_path) == []  # it lives
    killed(journal)
    assert left_in(tmp_path) == [(RESOURCE, [f"span {n}", {"n": n}]) for n in range(3)]
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_is_killed_while_it_makes_a_file_leaves_none(tmp_path: Path) -> None:
    """Breaks: a worker that is killed again and again fills the folder with files that nobody removes."""
    made, begun = tmp_path / "7-aaaa-0.new", tmp_path / "8-bbbb-0.new"
    made.touch()
    os.utime(made, (0, 0))
    begun.touch()
    assert left_in(tmp_path) == []
    assert list(tmp_path.iterdir()) == [begun], "its process may live, and begin now"


def test_exported_spans_are_forgotten(tmp_path: Path) -> None:
    """Breaks: after a crash spans of hours ago are exported again."""
    journal = Journal(tmp_path)
    journal.note(["exported"])
    journal.forget(1)
    journal.note(["waits"])
    killed(journal)
    assert names(tmp_path) == ["waits"]


def test_a_long_wait_costs_bounded_space_and_keeps_the_newest_turn(tmp_path: Path) -> None:
    """Breaks: a server that is away fills the disk with spans."""
    journal, text = Journal(tmp_path), "x" * 1000
    for number in range(2 * MOST_BYTES // 1000):
        journal.note([number, text])
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2 * (MOST_BYTES + 2000)


def test_under_load_two_files_take_turns(tmp_path: Path) -> None:
    """Breaks: a busy process, whose exporter is always a little behind, never forgets a span."""
    journal, text = Journal(tmp_path), "x" * 1000
    for number in range(4 * TURN_BYTES // 1000):
        journal.note([number, text])
        journal.forget(journal.number - 1)
    newest = number
    killed(journal)
    found = names(tmp_path)
    assert newest in found
    assert len(found) < 3 * TURN_BYTES // 1000


def test_an_orderly_end_leaves_only_what_waits(tmp_path: Path) -> None:
    """Breaks: each verb leaves a file behind, or the spans that a hanging server did not take are lost."""
    journal = Journal(tmp_path)
    journal.note(["exported"])
    journal.forget(1)
    journal.close()
    assert list(tmp_path.iterdir()) == []
    journal = Journal(tmp_path)
    journal.note(["waits"])
    journal.close()
    assert names(tmp_path) == ["waits"]


def test_a_torn_line_and_a_foreign_file_cost_only_themselves(tmp_path: Path) -> None:
    """Breaks: one half line of a killed process takes the spans before it away, or stops the next start."""
    journal = Journal(tmp_path)
    journal.note(["whole"])
    os.write(journal._files[0].fd, b'["half')
    killed(journal)
    (tmp_path / "foreign.spans").write_bytes(b"\xff\x00\n7\n")
    assert names(tmp_path) == ["whole"]


def test_a_disk_that_takes_no_line_costs_no_span(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: a full disk stops the export of traces, or the stage that ends a span."""
    journal = Journal(tmp_path)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(span_journal.os, "write", full)
    assert [journal.note([n]) for n in range(3)] == [False] * 3
    journal.forget(3)
    journal.close()


def test_a_closed_journal_writes_into_no_file(tmp_path: Path) -> None:
    """Breaks: a span that ends late is written into the file that has its descriptor now, or cuts it off."""
    journal = Journal(tmp_path)
    journal.note(["waits"])
    journal.close()
    foreign = [tmp_path / str(n) for n in range(8)]
    held = [os.open(path, os.O_CREAT | os.O_RDWR) for path in foreign]
    for fd in held:
        os.write(fd, b"whole")
    assert not journal.note(["late"])
    journal.forget(2)
    journal.close()
    assert {path.read_bytes() for path in foreign} == {b"whole"}
    for fd in held:
        os.close(fd)


def test_spans_that_nobody_keeps_stay_in_their_file(tmp_path: Path) -> None:
    """Breaks: a short command takes the spans of a killed worker over, ends, and they are lost."""
    journal = Journal(tmp_path)
    for number in range(5):
        journal.note([number])
    killed(journal)
    given: list[object] = []

    def give(_resource: object, line: object) -> bool:
        given.append(line)
        return len(given) < 3

    take_over(tmp_path, give)
    assert len(given) == 3
    assert names(tmp_path) == [0, 1, 2, 3, 4]


def test_living_processes_hide_no_left_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: on a machine with many processes nothing is ever taken over, and files pile up."""
    monkeypatch.setattr(span_journal, "LEFT_OVER_MOST", 2)
    living = [Journal(tmp_path) for _ in range(4)]
    for number in range(3):
        ended = Journal(tmp_path)
        ended.note([number])
        killed(ended)
    assert len(names(tmp_path)) <= 2
    assert len(list(tmp_path.iterdir())) == 8
    for journal in living:
        journal.close()
