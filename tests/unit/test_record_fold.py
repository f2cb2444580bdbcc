"""The fold of record: borders, gaps, doubles, and that any checkpoint continues it exactly."""

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handlers.format.fragment import FragmentSealer, end_fragment
from handlers.stages.record.fold import Fold
from handlers.stages.record.pieces import Duplicate, LateDuplicate, Output, Refused
from schemas.events.chunk import Ended, Recorded
from schemas.format.fragment import WINDOW, Kind
from schemas.format.index import fragment_rows
from streams.event_store.chunk_log import stream_seqs
from tests.support.evidence.folding import HOST, IDENTITY, KEYS, PART, SIGNER, UID, Host, looked_at, run
from tests.support.evidence.offline_fold import offline


def shape(outputs: Sequence[Output]) -> list[tuple[int, int, int, int]]:
    return [(o.track, o.first_seq, o.last_seq, o.plain) for o in outputs if isinstance(o, Recorded)]


STEP = st.tuples(
    st.sampled_from(["data", "data", "data", "key", "tick", "pause", "wait", "part"]),
    st.sampled_from([0, 0, 1]),
    st.integers(0, 120_000),
)


def recording(steps: list[tuple[str, int, int]]) -> list[bytes]:
    host = Host()
    made = [fragment for step in steps for fragment in host.make(step)]
    return [*made, *host.final()]


def disturbed(made: list[bytes], data: st.DataObject) -> list[bytes]:
    """The same fragments doubled, and delayed by less than the window; part and final stay barriers."""
    keyed: list[tuple[float, int, bytes]] = []
    barrier = 0.0
    for place, whole in enumerate(made):
        kind = looked_at(whole, 1).header.kind
        if kind in (Kind.PART, Kind.FINAL):
            barrier = max([barrier, *(at for at, _, _ in keyed)]) + 1
            at = barrier
        else:
            at = max(barrier, float(place)) + data.draw(st.sampled_from([0.5, 0.5, 0.5, 3.4, 9.2]))
        keyed.append((at, place, whole))
        if data.draw(st.integers(0, 5)) == 0:
            keyed.append((at + data.draw(st.sampled_from([0.1, 7.3])), place, whole))
    return [whole for _, _, whole in sorted(keyed)]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STEP, max_size=40), st.data())
def test_doubled_and_delayed_fragments_move_no_border(
    steps: list[tuple[str, int, int]], data: st.DataObject
) -> None:
    """Breaks: two recordings of the same screen seal to different chunks, and replay is worth nothing."""
    made = recording([step for step in steps if step[1] == 0])
    stream = disturbed(made, data)
    fold = Fold(IDENTITY)
    outputs = run(fold, [looked_at(whole, seq) for seq, whole in enumerate(stream, 1)])
    assert shape(outputs) == offline(made, IDENTITY.settings)
    ended = (
        outputs[-1] if isinstance(outputs[-1], Ended) else next(o for o in outputs if isinstance(o, Ended))
    )
    assert ended.fragments == len(made)
    assert fold.duplicates + sum(isinstance(o, Refused) for o in outputs) == len(stream) - len(made)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STEP, max_size=30), st.data())
def test_every_checkpoint_continues_the_fold_exactly(
    steps: list[tuple[str, int, int]], data: st.DataObject
) -> None:
    """Breaks: a worker that is killed makes other chunks than one that lives."""
    made = recording(steps)
    lost = data.draw(st.sets(st.integers(0, len(made) - 1), max_size=2))
    stream = [w for w in disturbed(made, data) if made.index(w) not in lost]
    pieces = [looked_at(whole, seq) for seq, whole in enumerate(stream, 1)]
    calm = Fold(IDENTITY)
    events = [o for o in run(calm, pieces) if isinstance(o, Recorded | Ended)]
    for place, event in enumerate(events[:-1]):
        by_seq = {piece.stream_seq: piece for piece in pieces}
        named = [by_seq[seq] for seq in event.state.named]
        fold = Fold.restore(IDENTITY, event.state, named)
        rest = [*fold.settle_waiting(), *run(fold, [p for p in pieces if p.stream_seq > event.state.at])]
        again = [o for o in rest if isinstance(o, Recorded | Ended)]
        later = [(o.track, o.first_seq, o.last_seq) if isinstance(o, Recorded) else "end" for o in again]
        wanted = [
            (o.track, o.first_seq, o.last_seq) if isinstance(o, Recorded) else "end"
            for o in events[place + 1 :]
        ]
        assert later == wanted
        for ours, theirs in zip(again, events[place + 1 :], strict=True):
            # Doubles of fragments that closed before the checkpoint come out as `LateDuplicate` here, and are
            # looked up elsewhere; the events are the same to the byte.
            assert ours == theirs


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STEP, min_size=1, max_size=25), st.data())
def test_end_closes_what_was_taken_and_names_it(
    steps: list[tuple[str, int, int]], data: st.DataObject
) -> None:
    """Breaks: a session whose host died can never be sealed."""
    host = Host()
    made = [fragment for step in steps for fragment in host.make(step)]
    lost = data.draw(st.sets(st.integers(1, len(made)), max_size=3))
    pieces = [looked_at(w, seq) for seq, w in enumerate(made, 1) if seq not in lost]
    end = end_fragment(UID, "host_lost", "silent", (), 99, SIGNER)
    fold = Fold(IDENTITY)
    outputs = run(fold, [*pieces, looked_at(end, len(made) + 1)])
    assert fold.ended
    ended = outputs[-1]
    assert isinstance(ended, Ended)
    assert ended.ending == end
    assert ended.end == "host_lost"
    closed = [output for output in outputs if isinstance(output, Recorded)]
    for tail in ended.tracks:
        chunks = [chunk for chunk in closed if chunk.track == tail.id]
        assert (chunks[-1].last_seq, chunks[-1].last_head) == (tail.last_seq, tail.head)
        assert sum(chunk.plain for chunk in chunks) == tail.plain
    assert {tail.id for tail in ended.tracks} == {chunk.track for chunk in closed}
    refused = {output.fragment.stream_seq for output in outputs if isinstance(output, Refused)}
    taken = {seq for chunk in closed for seq in stream_seqs(chunk)}
    assert taken == {piece.stream_seq for piece in pieces} - refused
    late = [looked_at(end, 1000), looked_at(host.make(("data", 0, 1))[-1], 1001)]
    assert [type(output) for output in run(fold, late)] == [Duplicate, Refused]
    assert sum(len(fragment_rows(o.rows)) for o in outputs if isinstance(o, Recorded)) == ended.fragments


def test_a_lost_fragment_is_declared_only_when_the_window_overflows() -> None:
    """Breaks: a slow fragment is called lost, and its evidence has a hole that never was."""
    host = Host()
    made = [f for _ in range(WINDOW + 2) for f in host.make(("data", 0, 10))]
    fold = Fold(IDENTITY)
    pieces = [looked_at(whole, seq) for seq, whole in enumerate(made, 1)]
    held_back = pieces.pop(1)
    before = run(fold, pieces[:WINDOW])
    assert before == []
    assert fold.tails()[0].last_seq == 0
    outputs = run(fold, pieces[WINDOW:])
    assert [o.closed_by for o in outputs if isinstance(o, Recorded)] == ["gap"]
    assert fold.tails()[0].last_seq == len(made) - 1
    late = fold.take(held_back)
    assert isinstance(late[0], LateDuplicate)


def test_a_forged_chain_is_refused_and_changes_nothing() -> None:
    """Breaks: one bad fragment stops or bends a recording."""
    host = Host()
    made = [f for n in (10, 20, 30) for f in host.make(("data", 0, n))]
    forger = FragmentSealer(UID, 0, HOST, KEYS.intake_public, bytes(32))
    forger.part(PART, 5)
    forged = [forger.data(b"x", 5), forger.data(b"y", 5)][1]
    fold = Fold(IDENTITY)
    run(fold, [looked_at(w, seq) for seq, w in enumerate(made[:2], 1)])
    outputs = fold.take(looked_at(forged, 3))
    assert [type(o) for o in outputs] == [Refused]
    assert outputs[0].code == "fragment.chain"  # type: ignore[union-attr]
    run(fold, [looked_at(w, seq) for seq, w in enumerate(made[2:], 4)])
    assert fold.tails()[0].last_seq == 3


def test_two_signed_fragments_for_one_place_are_kept_as_proof() -> None:
    """Breaks: a host can say two things and nobody learns of it."""
    ours, other = Host(), Host(now_us=7)
    made = [f for n in (10, 20) for f in ours.make(("data", 0, n))]
    others = [f for n in (10, 21) for f in other.make(("data", 0, n))]
    fold = Fold(IDENTITY)
    outputs = run(fold, [looked_at(w, seq) for seq, w in enumerate([*made, others[2]], 1)])
    assert [type(o) for o in outputs] == [Duplicate]
    ended = run(fold, [looked_at(w, 9) for w in ours.final()])
    found = next(o for o in ended if isinstance(o, Recorded)).equivocations
    assert [(e.track, e.seq) for e in found] == [(0, 2)]
    assert found[0].a != found[0].b
    assert len(found[0].a) == len(found[0].b) == 192


@pytest.mark.parametrize("place", ["first", "last"])
def test_a_final_waits_for_nothing_that_was_sent_before_it(place: str) -> None:
    """Breaks: a session whose host has lost a fragment of its second track stays open for ever."""
    host = Host()
    main, events = host.make(("data", 0, 10)), host.make(("data", 1, 10))
    final = host.final()
    held = {"first": 0, "last": 1}[place]
    order = [*main, *(e for n, e in enumerate(events) if n != held), *final]
    fold = Fold(IDENTITY)
    outputs = run(fold, [looked_at(w, seq) for seq, w in enumerate(order, 1)])
    assert fold.ended
    assert not fold.refused_final
    ended = outputs[-1]
    assert isinstance(ended, Ended)
    assert sorted(ended.genesis) == [0, 1], "its genesis is needed for the gap"
    # nothing of a part is taken before its part fragment
    assert sorted(t.id for t in ended.tracks) == ([0] if place == "first" else [0, 1])
