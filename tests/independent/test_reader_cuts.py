"""Where chunks are cut: every rule of docs/format.md §5, at its border."""

from __future__ import annotations

import pytest
import writer
from reader_bytes import DATA, FINAL, PART, PAUSE, RESUME, TICK, Header
from reader_crypto import IntakeKey
from reader_keyed import OpenChunk, why_closed
from writer_host import Host, Plan, secret

SIZE, SECONDS = 1 << 20, 10
UID = bytes(16)


def header(kind: int = DATA, length: int = 116, seq: int = 9, time_us: int = 0, flags: int = 0) -> Header:
    return Header(kind, flags, 0, 0, UID, seq, time_us, length, bytes(32))


def chunk(**values: int) -> OpenChunk:
    return OpenChunk(**({"first_us": 0, "last_seq": 8, "part": 0, "plain": 1000, "fragments": 5} | values))


@pytest.mark.parametrize(
    ("state", "fragment", "why"),
    [
        (chunk(), header(), ""),
        (chunk(plain=SIZE - 100), header(), ""),
        (chunk(plain=SIZE - 99), header(), "size"),
        (chunk(plain=SIZE), header(TICK, 0), ""),
        (chunk(plain=SIZE), header(length=16), ""),
        (chunk(plain=SIZE * 3 // 4 - 1), header(flags=1), ""),
        (chunk(plain=SIZE * 3 // 4), header(flags=1), "key_frame"),
        (chunk(plain=SIZE * 3 // 4), header(), ""),
        (chunk(), header(time_us=SECONDS * 1_000_000 - 1), ""),
        (chunk(), header(time_us=SECONDS * 1_000_000), "time"),
        (chunk(), header(TICK, 0, time_us=SECONDS * 1_000_000), "time"),
        (chunk(plain=0), header(time_us=SECONDS * 1_000_000), ""),
        (chunk(fragments=2047), header(TICK, 0), ""),
        (chunk(fragments=2048), header(TICK, 0), "fragments"),
        (chunk(clear=(256 << 10) - 30), header(RESUME, 30), ""),
        (chunk(clear=(256 << 10) - 29), header(RESUME, 30), "clear"),
        (chunk(clear=256 << 10), header(), ""),
        (chunk(), header(PART, 1208), "part"),
        (chunk(), header(seq=10), "gap"),
        (chunk(), header(PAUSE, 20), ""),
    ],
)
def test_a_chunk_closes_exactly_at_the_border(state: OpenChunk, fragment: Header, why: str) -> None:
    """Breaks: two implementations cut one recording into different chunks."""
    assert why_closed(state, fragment, SIZE, SECONDS) == why


def test_a_pause_is_the_last_of_its_chunk() -> None:
    """Breaks: what follows a pause lands in the chunk before it."""
    state = chunk()
    state.add(header(PAUSE, 20))
    assert why_closed(state, header(seq=10), SIZE, SECONDS) == "pause"


@pytest.mark.parametrize("end", ["final", "aborted"])
def test_other_tracks_close_before_the_main_one(end: str) -> None:
    """Breaks: chunk numbers at the end of a session differ between implementations."""
    plan = Plan(((0, PART, b"start", 0), (1, PART, b"start", 0), (0, DATA, b"x", 0)), end=end)
    sent = Host(IntakeKey(secret("data key")).public, plan).run(plan.steps)
    groups = writer.cut(sent, plan)
    assert [group[0].header.track for group in groups] == [1, 0]
    assert (groups[-1][-1].header.kind == FINAL) == (end == "final")
