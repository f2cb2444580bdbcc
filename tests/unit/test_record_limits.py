"""The fold of record at its limits: what hosts may send for ever, and nothing grows or gets stuck."""

import pytest

from handlers.stages.record.admit import Arrival, Unfit
from handlers.stages.record.fold import Fold
from handlers.stages.record.open_chunk import MAX_CLEAR_BYTES, MAX_FRAGMENTS, RECENT
from handlers.stages.record.pieces import Duplicate, FoldedFragment, LateDuplicate, Refused
from infra.nats_server.server import MAX_PAYLOAD
from schemas.events.chunk import Ended, Recorded
from schemas.format.fragment import WINDOW, GapBody
from schemas.format.index import fragment_rows
from schemas.format.manifest import MAX_EQUIVOCATIONS
from schemas.ports.messages import Message
from streams.event_store.topology import EVENT_BYTES
from tests.support.evidence.folding import IDENTITY, PART, Host, looked_at, run

HEADERS_BYTES = 64 << 10
"""What JetStream takes of headers in one message."""


def pieces(made: list[bytes], first: int = 1, step: int = 1) -> list[FoldedFragment]:
    return [looked_at(whole, first + step * n) for n, whole in enumerate(made)]


def many(host: Host, n: int, track: int = 0) -> list[bytes]:
    """So many data fragments, after the part that begins the track."""
    return [fragment for _ in range(n) for fragment in host.make(("data", track, 10))]


def begun(host: Host) -> Fold:
    """A fold that holds something of both tracks."""
    fold = Fold(IDENTITY)
    run(fold, pieces([*many(host, 1), *many(host, 1, 1)]))
    return fold


def held(fold: Fold) -> int:
    """Fragments that are in no closed chunk: in memory, and named by a checkpoint."""
    waiting = sum(len(track.open) + len(track.early) for track in fold._tracks.values())
    assert len(fold.state().named) == waiting
    return waiting


def test_nothing_waits_before_a_final_and_nothing_is_taken_behind_it() -> None:
    """Breaks: a host leaves a hole before its final, or sends on behind it, and fills the worker's memory."""
    host = Host()
    fold = begun(host)
    late, *overtaking = pieces(many(host, 20), 10)
    assert run(fold, overtaking) == []
    final, *behind = pieces([*host.final(), *many(host, 3 * WINDOW)], 50)
    outputs = run(fold, [*behind[:5], final])
    assert isinstance(outputs[-1], Ended)
    assert [output.code for output in outputs if isinstance(output, Refused)] == ["fragment.after_final"] * 5
    gap = next(one for one in outputs if isinstance(one, Recorded) and one.first_seq == late.header.seq + 1)
    assert gap.closed_by == "final"
    outputs = run(fold, [late, *behind[5:]])
    assert {output.code for output in outputs if isinstance(output, Refused)} == {"fragment.after_end"}
    assert len(outputs) == 1 + len(behind[5:])
    assert held(fold) == 0


def test_a_window_is_all_that_waits_for_a_lost_fragment() -> None:
    """Breaks: one lost fragment keeps everything after it in memory until the end."""
    host, fold, most = Host(), Fold(IDENTITY), 0
    made = pieces(many(host, 3 * WINDOW))
    for piece in made[:1] + made[2:]:
        fold.take(piece)
        most = max(most, len(fold.state().tracks[0].early))
    assert most == WINDOW - 1
    assert fold.tails()[0].last_seq == len(made) - 1


@pytest.mark.parametrize("barrier", ["part", "gap"])
@pytest.mark.parametrize("between", [0, 1, 5])
def test_a_barrier_declares_what_was_lost_whatever_stands_between(barrier: str, between: int) -> None:
    """Breaks: a fragment that is lost shortly before a new part makes a session wait until it ends."""
    host, lost = Host(), 3
    made = many(host, lost + between)
    sealer, now_us = host.tracks[0], host.now_us
    if barrier == "part":
        made.append(sealer.part(PART, now_us))
    else:
        made.append(sealer.gap(now_us, now_us, 1, "encoder", now_us))
    fold = Fold(IDENTITY)
    outputs = run(fold, [piece for piece in pieces(made) if piece.header.seq != lost])
    assert fold.tails()[0].last_seq == len(made) - 1, "nothing waits"
    outputs += run(fold, pieces([*many(host, 1), *host.final()], 50))
    chunks = [output for output in outputs if isinstance(output, Recorded)]
    assert outputs == [*chunks, outputs[-1]]
    assert isinstance(outputs[-1], Ended)
    assert (chunks[0].last_seq, chunks[1].first_seq) == (lost - 1, lost + 1)
    assert chunks[0].closed_by == ("part" if barrier == "part" and not between else "gap")


@pytest.mark.parametrize("seq", [0, 1, 5, RECENT, RECENT + 100])
def test_a_double_inside_an_open_chunk_is_known_however_long_the_chunk(seq: int) -> None:
    """Breaks: a double is looked up in closed chunks, where it is not, and called a fragment that is late."""
    host, other, fold = Host(), Host(now_us=7), Fold(IDENTITY)
    made = pieces(many(host, RECENT + 150))
    assert run(fold, made) == []
    assert fold.take(made[seq]) == [Duplicate(made[seq])]
    assert (fold.duplicates, fold.equivocations) == (1, 0)
    again = pieces(many(other, RECENT + 150))[seq]
    assert fold.take(again) == [Duplicate(again)]
    assert (fold.duplicates, fold.equivocations) == (1, 1)
    (chunk, _) = run(fold, pieces(host.final(), 900))
    assert isinstance(chunk, Recorded)
    assert [(found.seq, found.a, found.b) for found in chunk.equivocations] == [
        (seq, made[seq].proof, again.proof)
    ]


def test_a_double_of_a_closed_chunk_is_known_for_a_while_and_then_looked_up() -> None:
    """Breaks: doubles of closed chunks are taken for new fragments."""
    host, fold = Host(), Fold(IDENTITY)
    made = pieces([*many(host, 2), *host.make(("pause", 0, 0)), *many(host, RECENT - 4)])
    run(fold, made)
    assert fold.take(made[1]) == [Duplicate(made[1])]
    run(fold, pieces(many(host, 2), 900))
    assert fold.take(made[1]) == [LateDuplicate(made[1])]


def test_the_largest_event_fits_into_a_message() -> None:
    """Breaks: a recording whose chunk closes with an event that no stream takes ends there."""
    host, other, fold = Host(), Host(now_us=7), Fold(IDENTITY)
    (main, events), now_us = host.tracks, host.now_us
    open_ = [events.part(PART, now_us), *(events.tick(now_us) for _ in range(MAX_FRAGMENTS - 1))]
    run(fold, pieces(open_, 10**12, 10**6))  # the other track's chunk stays open: the event names it all
    equal = MAX_CLEAR_BYTES // MAX_FRAGMENTS
    reason = "r" * (equal + 1 - len(GapBody(from_us=1, to_us=1, frames=1, reason="r").build()))
    made = [main.part(PART, now_us), *(main.gap(1, 1, 1, reason, now_us) for _ in range(MAX_FRAGMENTS - 20))]
    assert run(fold, pieces(made, 2 * 10**12, 10**6)) == []
    doubles = [other.tracks[0].part(PART, 7), *(other.tracks[0].tick(7) for _ in range(MAX_EQUIVOCATIONS))]
    run(fold, pieces(doubles, 4 * 10**12))
    assert fold.equivocations == MAX_EQUIVOCATIONS + 1
    chunk = run(fold, pieces([main.gap(1, 1, 1, reason, now_us) for _ in range(40)], 5 * 10**12))[0]
    assert isinstance(chunk, Recorded)
    assert (len(chunk.equivocations), len(chunk.state.tracks[1].open)) == (MAX_EQUIVOCATIONS, MAX_FRAGMENTS)
    assert len(chunk.stream) > MAX_FRAGMENTS - 20, chunk.closed_by
    assert sum(len(row.body) for row in fragment_rows(chunk.rows)) > 0.99 * MAX_CLEAR_BYTES
    assert len(chunk.model_dump_json()) + HEADERS_BYTES < EVENT_BYTES < MAX_PAYLOAD


def test_a_message_that_waits_counts_with_its_headers() -> None:
    """Breaks: a host fills a worker's memory with messages that hold no data."""
    message = Message("lucid.rec.0.h.s", b"", {"x": "y" * HEADERS_BYTES})
    assert Arrival(message, Unfit("fragment.length", "")).size > HEADERS_BYTES
