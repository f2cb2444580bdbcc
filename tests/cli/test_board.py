"""The view of a session's way: events in, lines out."""

import random

import pytest

from schemas.events.chunk import (
    Ended,
)
from streams.cli import live
from streams.cli.board import Board
from streams.cli.live import LiveLines
from tests.support.pipeline.chunk_events import UID, events_of, state
from tests.support.program.screen import shown_on

NAMED = {"session": "s-1", "uid": UID}


def ended(chunks: int) -> Ended:
    return Ended(
        **NAMED,
        chunks=chunks,
        fragments=6,
        plain=2000,
        tracks=(),
        genesis={},
        end="final",
        reason="done",
        ended_us=0,
        ending=b"",
        state=state(6),
    )


def test_the_lines_say_what_became_of_every_chunk() -> None:
    """Breaks: the demo reports a stage that did not happen, or sizes that are not there."""
    view = Board()
    for event in [*events_of(0, 1), *events_of(1, 0), ended(2)]:
        view.take(event.model_dump_json().encode())
    assert view.lines() == [
        "  record     6 fragments      2 kB   2.0 s, none missing, none doubled",
        "  chunk         2 chunks      2 kB   opened and joined, in order",
        "  compress      2 chunks      1 kB   zstd; 1 kept raw: nothing to gain",
        "  encrypt       2 chunks      2 kB   XChaCha20-Poly1305",
        "  merkle        2 leaves             BLAKE3",
        "  store         2 chunks      2 kB   durable, read back",
    ]
    assert all(len(line) <= 80 for line in view.lines())


def test_a_recording_says_how_fast_it_is_and_how_long_it_will_take() -> None:
    """Breaks: nobody knows whether a large file takes a minute or a night."""
    view = Board()
    view.sent = (4, 3_000_000, 0.5)
    assert view.lines()[0].split("   ")[-1] == "0.5 s so far"
    view.sent = (40, 30_000_000, 2.0)
    assert view.lines()[0] == "  record    40 fragments   30.0 MB   2.0 s so far, 15.0 MB/s"
    view.source_bytes = 90_000_000
    assert view.lines()[0].endswith("2.0 s so far, 15.0 MB/s, about 4 s left")
    view.sent = (120, 90_000_000, 6.0)
    assert view.lines()[0].endswith("6.0 s so far, 15.0 MB/s")


def test_doubled_and_reordered_events_change_no_line() -> None:
    """Breaks: a redelivery shows chunks that do not exist."""
    bodies = [event.model_dump_json().encode() for k in range(4) for event in events_of(k, k % 2)]
    calm, wild = Board(), Board()
    for body in bodies:
        calm.take(body)
    for body in random.Random(2).sample(bodies * 3, len(bodies) * 3):
        wild.take(body)
    assert wild.lines() == calm.lines()


def test_a_session_is_complete_only_when_its_last_chunk_is_stored() -> None:
    """Breaks: the demo seals, or says done, while a chunk is still in memory."""
    view = Board()
    assert not view.complete
    *events, stored = [*events_of(0, 1), *events_of(1, 1)]
    for event in [*events, ended(2)]:
        view.take(event.model_dump_json().encode())
    assert not view.complete
    view.take(stored.model_dump_json().encode())
    assert view.complete


def test_nothing_is_drawn_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks: a log file fills with escape codes."""
    live = LiveLines(1)
    live.draw(["a"], now=True)
    live.clear()
    assert capsys.readouterr() == ("", "")


def test_a_terminal_is_redrawn_in_place_and_not_too_often(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: the view scrolls away, or costs more than the work that it shows."""
    monkeypatch.setattr(live, "styled", lambda _: True)
    drawing, written = LiveLines(60), ""
    for lines, now, shown in (
        (["a", "b"], False, ["a", "b"]),
        (["never", "shown"], False, ["a", "b"]),
        (["c"], True, ["c"]),
        (["d" * 200], True, ["d" * 80]),
    ):
        drawing.draw(lines, now=now)
        written += capsys.readouterr().err
        assert shown_on(written) == shown
    drawing.clear()
    written += capsys.readouterr().err
    assert shown_on(written) == []
    assert "never" not in written
    assert written.endswith("\x1b[1A\x1b[2K")
