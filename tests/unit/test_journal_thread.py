"""What infra.telemetry.journal_thread promises."""

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.telemetry import journal_thread, span_journal
from infra.telemetry.journal_thread import JournalThread
from infra.telemetry.span_journal import SpanJournal
from tests.support.machine.waiting import until


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[JournalThread]:
    made = JournalThread(SpanJournal(tmp_path, {}))
    yield made
    made.close()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A disk that writes while the event is set."""
    runs, write = threading.Event(), os.write

    def slow(fd: int, data: bytes) -> int:
        runs.wait()
        return write(fd, data)

    monkeypatch.setattr(span_journal.os, "write", slow)
    yield runs
    runs.set()


def written(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob("*.spans"))


async def test_a_span_that_is_kept_is_in_the_file(journal: JournalThread, tmp_path: Path) -> None:
    """Breaks: a message is acknowledged, its worker is killed, and the trace has a hole there."""
    for number in range(1, 300):
        journal.add(number, [f"span {number}"])
        if number % 50 == 0:
            await journal.kept()
            assert b'"span %d"' % number in written(tmp_path)
    await journal.kept()
    assert written(tmp_path).count(b"\n") == 300  # with the resource


async def test_many_spans_are_one_write(
    journal: JournalThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: each span of a busy process is a system call and a change of threads."""
    write, writes = os.write, list[int]()

    def counted(fd: int, data: bytes) -> int:
        writes.append(len(data))
        return write(fd, data)

    monkeypatch.setattr(journal_thread, "GATHER_S", 3600)
    monkeypatch.setattr(span_journal.os, "write", counted)
    for number in range(1, 101):
        journal.add(number, [number])
    await journal.kept()
    assert len(writes) == 1


async def test_a_disk_that_hangs_is_waited_for_once(
    journal: JournalThread, disk: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a disk that hangs holds up each message of each stage, for traces."""
    monkeypatch.setattr(journal_thread, "KEPT_S", 0.01)
    journal.add(1, ["first"])
    await journal.kept()
    monkeypatch.setattr(journal_thread, "KEPT_S", 3600)
    for number in range(2, 100):
        journal.add(number, ["later"])
        await journal.kept()
    disk.set()
    await until(lambda: journal._written == 99)
    assert not journal._is_slow


async def test_spans_that_wait_for_a_disk_are_bounded(
    journal: JournalThread, disk: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a disk that hangs fills the memory of a worker with spans, or one is said to be kept."""
    monkeypatch.setattr(journal_thread, "WAITING_MOST", 10)
    for number in range(1, 1001):
        journal.add(number, [number])
    assert journal._queue.qsize() <= 10
    disk.set()
    await journal.kept()
    assert not await asyncio.to_thread(journal.is_kept, 1000)
    journal.add(1001, ["again"])
    assert await asyncio.to_thread(journal.is_kept, 1001)


async def test_a_span_that_is_no_json_costs_only_its_batch(journal: JournalThread) -> None:
    """Breaks: one strange attribute ends the journal, and later kills leave holes."""
    journal.add(1, [object()])
    await journal.kept()
    journal.add(2, ["whole"])
    assert await asyncio.to_thread(journal.is_kept, 2)
    assert not await asyncio.to_thread(journal.is_kept, 1)


async def test_the_end_writes_what_waits(tmp_path: Path) -> None:
    """Breaks: an orderly end loses the spans of its last moment."""
    ended = JournalThread(SpanJournal(tmp_path, {}))
    ended.add(1, ["exported"])
    ended.add(2, ["waits"])
    ended.forget(1)
    await asyncio.to_thread(ended.close)
    assert b"waits" in written(tmp_path)
    other = JournalThread(SpanJournal(tmp_path / "other", {}))
    other.add(1, ["exported"])
    other.forget(1)
    await asyncio.to_thread(other.close)
    assert list((tmp_path / "other").iterdir()) == []
