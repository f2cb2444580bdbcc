"""What the stage `record` counts, against what hosts have sent and manifests will say."""

import json
from collections.abc import Sequence

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handlers.stages.record.fold import Fold
from handlers.stages.record.pieces import Output
from infra.telemetry.metrics import Meter
from schemas.events.chunk import Ended, Recorded
from schemas.format.fragment import Kind
from schemas.format.index import fragment_rows
from streams.pipeline.measurements import RecordMeasurements
from tests.support.evidence.folding import IDENTITY, Host, looked_at, run

STEP = st.tuples(
    st.sampled_from(["data", "data", "key", "tick", "pause", "part", "gap"]),
    st.sampled_from([0, 0, 1]),
    st.integers(0, 120_000),
)


def measured(outputs: Sequence[Output]) -> dict[str, float]:
    """The counts after these outputs, by name and label."""
    meter, before = Meter("worker"), Fold(IDENTITY).state()
    measurements = RecordMeasurements(meter)
    for output in outputs:
        if isinstance(output, Recorded):
            measurements.recorded(output, before)
            before = output.state
        elif isinstance(output, Ended):
            measurements.ended(output)
    return {
        ".".join((name, *labels.values())): value
        for family in json.loads(meter.sample())["families"]
        for name, labels, value, _ in family["samples"]
    }


def made_by(host: Host, step: tuple[str, int, int]) -> list[bytes]:
    what, track, _ = step
    if what == "gap" and host.tracks[track].state.next_seq:
        return [host.tracks[track].gap(1, 2, 3, "overload", host.now_us)]
    return host.make(step)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STEP, max_size=40), st.data())
def test_fragments_that_came_and_that_never_came_are_all_that_a_host_made(
    steps: list[tuple[str, int, int]], data: st.DataObject
) -> None:
    """Breaks: holes are counted as fragments, and nobody is told of those at the end of a track."""
    host = Host()
    made = [fragment for step in steps for fragment in made_by(host, step)]
    lost = data.draw(st.sets(st.integers(0, len(made)), max_size=6))
    sent = [fragment for number, fragment in enumerate(made) if number not in lost] + host.final()
    outputs = run(Fold(IDENTITY), [looked_at(whole, seq) for seq, whole in enumerate(sent, 1)])
    ends = [output for output in outputs if isinstance(output, Ended)]
    chunks = [output for output in outputs if isinstance(output, Recorded)]
    if not ends:
        return  # the final was refused
    found = measured(outputs)
    assert found["lucid_fragments_total"] == sum(len(fragment_rows(one.rows)) for one in chunks)
    chain = sum(sealer.state.next_seq for sealer in host.tracks)
    assert found["lucid_fragments_total"] + found["lucid_fragments_lost_total"] == chain
    rows = [row for one in chunks for row in fragment_rows(one.rows)]
    assert found["lucid_gaps_total.host"] == sum(row.kind is Kind.GAP for row in rows)
    assert found["lucid_gaps_total.platform"] == holes(chunks, host) - behind_a_gap(chunks)


def holes(chunks: Sequence[Recorded], host: Host) -> int:
    """Runs of fragments of a track that are in no chunk."""
    came = {(one.track, seq) for one in chunks for seq in range(one.first_seq, one.last_seq + 1)}
    return sum(
        (track, seq) not in came and (seq == 0 or (track, seq - 1) in came)
        for track, sealer in enumerate(host.tracks)
        for seq in range(sealer.state.next_seq)
    )


def behind_a_gap(chunks: Sequence[Recorded]) -> int:
    """Holes right behind which a gap fragment of the host stands."""
    lasts = {(one.track, one.last_seq + 1) for one in chunks}
    return sum(
        fragment_rows(one.rows)[0].kind is Kind.GAP
        and one.first_seq > 0
        and (one.track, one.first_seq) not in lasts
        for one in chunks
    )
