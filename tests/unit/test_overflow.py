"""Files without names for what exceeds memory: bytes come back as they were, or not at all."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from handlers.stages.record.admit import admit
from infra.disk import overflow as disk
from infra.disk.overflow import DiskOverflow, DiskOverflowFile
from schemas.format.fragment import Fragment, Kind
from streams.pipeline.chunk_memory import ChunkMemory
from streams.pipeline.spilled_fragments import Kept, Spilled, bytes_held, read_back, spilled
from tests.support.evidence.folding import PUBLIC, Host
from tests.unit.test_chunk_memory import TAPES, holding

LARGE = 1 << 30
BODY = os.urandom(3000)


@pytest.fixture
def overflow(tmp_path: Path) -> DiskOverflow:
    return DiskOverflow(tmp_path / "temp", LARGE)


def opened(overflow: DiskOverflow) -> DiskOverflowFile:
    file = overflow.open()
    assert file is not None
    return file


def read(file: DiskOverflowFile, at: int, size: int) -> bytes | None:
    buffer = bytearray(size)
    return bytes(buffer) if file.read(at, memoryview(buffer)) else None


@pytest.mark.parametrize("tmpfile", [True, False])
def test_bytes_come_back_as_they_were(tmp_path: Path, tmpfile: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks: a chunk is made of other bytes than its host sent."""
    if not tmpfile:
        monkeypatch.delattr(os, "O_TMPFILE")
    overflow = DiskOverflow(tmp_path / "temp", LARGE)
    first, second = opened(overflow), opened(overflow)
    places = [(file, file.append(BODY[:size])) for size in (3000, 1, 17) for file in (first, second)]
    assert [at for _, at in places] == [0, 0, 3000, 3000, 3001, 3001]
    for (file, at), size in zip(places, (3000, 3000, 1, 1, 17, 17), strict=True):
        assert at is not None
        assert read(file, at, size) == BODY[:size]
    assert read(first, 3001, 18) is None, "there is less than that"
    assert list((tmp_path / "temp").iterdir()) == [], "a file has a name"


def test_a_file_ends_with_its_last_user(overflow: DiskOverflow) -> None:
    """Breaks: the disk fills with the bytes of chunks that were stored long ago."""
    file = opened(overflow)
    assert file.append(BODY) == 0
    descriptor = file._file
    assert overflow.used_bytes == len(BODY)
    del file
    assert overflow.used_bytes == 0
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_all_files_together_have_one_bound(tmp_path: Path) -> None:
    """Breaks: open chunks fill the disk that the recordings need."""
    overflow = DiskOverflow(tmp_path, 2 * len(BODY))
    first, second = opened(overflow), opened(overflow)
    assert (first.append(BODY), second.append(BODY)) == (0, 0)
    assert overflow.open() is None
    assert overflow.is_full
    assert first.append(b"x") is None
    assert overflow.is_full
    del second
    assert first.append(BODY) == len(BODY)


@pytest.mark.parametrize("sharers", [1, 4])
def test_files_leave_most_of_the_free_disk(
    tmp_path: Path, sharers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: on a small disk the stream and the store find no room, because scratch has it."""
    overflow = DiskOverflow(tmp_path, LARGE, sharers)
    file = opened(overflow)

    class Disk(NamedTuple):
        f_bavail: int
        f_frsize: int = 1

    monkeypatch.setattr(os, "fstatvfs", lambda file: Disk(sharers * disk.FREE_PART * len(BODY) + 3))
    assert file.append(BODY) == 0
    assert file.append(b"x") is None
    assert overflow.is_full


def test_no_more_files_are_open_than_the_process_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: the store cannot open a file, because scratch has all descriptors."""
    monkeypatch.setattr(disk, "raised_file_limit", lambda: 2 * disk.FILES_PART)
    overflow = DiskOverflow(tmp_path, LARGE)
    files = [overflow.open() for _ in range(3)]
    assert [file is None for file in files] == [False, False, True]
    assert overflow.is_full
    del files
    assert overflow.open() is not None


@pytest.mark.parametrize("failure", ["error", "short", "slow"])
def test_a_disk_that_fails_or_is_slow_is_left_alone_for_a_while(
    overflow: DiskOverflow, failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: a full or slow disk holds up the event loop of all recordings, or ends one."""
    file, now_s, pwrite = opened(overflow), [100.0], os.pwrite
    assert file.append(b"before") == 0

    def write(descriptor: int, data: Any, at: int) -> int:
        if failure == "error":
            raise OSError(28, "No space left on device")
        now_s[0] += 2 * disk.SLOW_S * (failure == "slow")
        return pwrite(descriptor, data[: -(failure == "short") or None], at)

    monkeypatch.setattr(disk.time, "monotonic", lambda: now_s[0])
    monkeypatch.setattr(os, "pwrite", write)
    assert (file.append(BODY) is None) is (failure != "slow"), "only slow bytes are whole"
    monkeypatch.setattr(os, "pwrite", pwrite)
    assert file.append(BODY) is None
    assert overflow.open() is None
    assert not overflow.is_full
    now_s[0] += disk.PAUSE_S
    at = file.append(BODY)
    assert at is not None
    assert read(file, at, len(BODY)) == BODY
    assert read(file, 0, 6) == b"before"
    assert overflow.used_bytes == at + len(BODY)


def test_a_folder_that_cannot_be_made_is_a_refusal(tmp_path: Path) -> None:
    """Breaks: a wrong TEMP_STORAGE_PATH ends the recordings that memory cannot hold."""
    (tmp_path / "file").write_bytes(b"")
    assert DiskOverflow(tmp_path / "file", LARGE).open() is None


def test_a_killed_process_leaves_no_file(tmp_path: Path) -> None:
    """Breaks: each crash of a worker leaves gigabytes that nobody removes."""
    program = (
        "import os, signal, sys; from pathlib import Path; from infra.disk.overflow import DiskOverflow\n"
        "file = DiskOverflow(Path(sys.argv[1]), 1 << 30).open(); file.append(bytes(100000))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


def fragments(*sizes: int) -> list[Fragment]:
    host = Host()
    host.make(("part", 0, 0))
    made = [whole for size in sizes for whole in host.make(("data", 0, size))]
    found = [admit(whole, PUBLIC) for whole in made]
    return [one for one in found if isinstance(one, Fragment) and one.header.kind is Kind.DATA]


@pytest.mark.parametrize("away", ["none", "all", "reversed", "every second", "two files"])
def test_a_chunk_is_the_same_from_memory_and_from_files(overflow: DiskOverflow, away: str) -> None:
    """Breaks: bytes of a chunk stand in another order, or at the wrong fragment."""
    wanted = fragments(700, 10, 3000, 1, 0, 40)
    files = [opened(overflow), opened(overflow)]
    kept: list[Kept] = list(wanted)
    numbers = range(0, len(wanted), 2 if away == "every second" else 1) if away != "none" else range(0)
    for number in sorted(numbers, reverse=away == "reversed"):
        moved = spilled(wanted[number], files[number % 2 if away == "two files" else 0])
        assert moved is not None
        kept[number] = moved
    assert sum(map(bytes_held, kept)) == sum(
        len(one.body) for number, one in enumerate(wanted) if number not in numbers
    )
    assert read_back(kept) == wanted
    assert kept == []


def test_a_file_that_lost_bytes_gives_no_chunk(overflow: DiskOverflow) -> None:
    """Breaks: a chunk is cut short, or made of zeros, instead of read from the stream."""
    file = opened(overflow)
    moved = [spilled(one, file) for one in fragments(700, 900)]
    os.ftruncate(file._file, 1000)
    assert read_back([one for one in moved if one is not None]) is None


async def test_over_the_budget_a_chunk_goes_to_a_file_and_comes_back_whole(overflow: DiskOverflow) -> None:
    """Breaks: with many sessions each chunk is read from the stream again, and the server is the limit."""
    old, young = TAPES[0], TAPES[2]
    chunk_memory = ChunkMemory(sum(len(old.fragments[seq].body) for seq in old.seqs[3]), 1 << 20, overflow)
    for tape in (old, young):
        holding(chunk_memory, tape, 3)
        assert chunk_memory.open_bytes <= chunk_memory.record_limit
    assert overflow.used_bytes == sum(len(young.fragments[seq].body) for seq in young.seqs[3])
    for tape in (young, old):
        chunk_memory.close(tape.chunks[3], tape.seqs[3])
        kept = chunk_memory.start(chunk_memory.work(tape.chunks[3]))
        assert kept is not None
        assert any(isinstance(one, Spilled) for one in kept) is (tape is young)
        assert read_back(kept) == [tape.fragments[seq] for seq in tape.seqs[3]]
    assert (chunk_memory.open_bytes, chunk_memory.closed_bytes, overflow.used_bytes) == (0, 0, 0)


async def test_a_greedy_host_drops_its_own_chunks_when_the_files_are_full(tmp_path: Path) -> None:
    """Breaks: a host that opens chunks and never closes them drives all others to the stream."""
    greedy, other = TAPES[0], TAPES[1]
    size = sum(len(other.fragments[seq].body) for seq in other.seqs[3])
    full = sum(len(greedy.fragments[seq].body) for seq in greedy.seqs[3])
    overflow = DiskOverflow(tmp_path, max(full, size))
    chunk_memory = ChunkMemory(1, 1 << 20, overflow)
    for seq in greedy.seqs[3]:
        chunk_memory.add(greedy.uid, "greedy", seq, greedy.fragments[seq])
    assert overflow.used_bytes == full
    for seq in other.seqs[3]:
        chunk_memory.add(other.uid, "other", seq, other.fragments[seq])
    assert overflow.used_bytes == size, "all of the other host, nothing of the greedy one"
    for tape, found in ((greedy, False), (other, True)):
        chunk_memory.close(tape.chunks[3], tape.seqs[3])
        assert (chunk_memory.start(chunk_memory.work(tape.chunks[3])) is not None) is found


async def test_a_chunk_that_no_file_takes_is_dropped_whole(tmp_path: Path) -> None:
    """Breaks: a chunk of which a part is kept holds memory or a file, and is read again anyway."""
    tape = TAPES[2]
    sizes = [len(tape.fragments[seq].body) for seq in tape.seqs[3]]
    overflow = DiskOverflow(tmp_path, sum(sizes) - 1)
    chunk_memory = ChunkMemory(1, 1 << 20, overflow)
    holding(chunk_memory, tape, 3)
    assert (chunk_memory.open_bytes, overflow.used_bytes) == (0, 0)
    chunk_memory.close(tape.chunks[3], tape.seqs[3])
    assert chunk_memory.start(chunk_memory.work(tape.chunks[3])) is None


async def test_refused_copies_in_a_file_count_as_their_hosts(overflow: DiskOverflow) -> None:
    """Breaks: a host that repeats itself without end fills the disk, and nothing counts it."""
    tape = TAPES[1]
    seq = tape.seqs[3][0]
    chunk_memory = ChunkMemory(1, 1 << 20, overflow)
    for copy in range(3):
        chunk_memory.add(tape.uid, "host", seq + 1000 * copy, tape.fragments[seq])
        chunk_memory.drop(tape.uid, seq + 1000 * copy)
    assert chunk_memory._open._away_of_host["host"] == overflow.used_bytes > 0
    chunk_memory.forget_open(tape.uid)
    assert overflow.used_bytes == 0
