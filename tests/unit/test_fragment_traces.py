"""What streams.host.fragment_traces promises."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from handlers.format.fragment import FragmentSealer
from handlers.stages.record.fold import Fold
from handlers.stages.record.pieces import FoldedFragment, Identity
from schemas.events.chunk import Recorded
from schemas.events.session import SessionSettings
from schemas.format.fragment import HEADER_BYTES, Header, PartSettings, parse
from streams.host.fragment_traces import ExpectedChunk
from tests.support.evidence.published import GENESIS, HOST, KEYS

SETTINGS = SessionSettings(chunk_bytes=1 << 18, chunk_max_seconds=60)
UID = bytes(16)
PART = PartSettings(encoder="opaque", reason="start")
STEPS = st.tuples(
    st.sampled_from(["data", "data", "data", "key", "tick", "part", "pause"]),
    st.integers(1, 1 << 16),
    st.integers(0, 30_000_000),
)


def seal(sealer: FragmentSealer, kind: str, size: int, time_us: int) -> bytearray:
    match kind:
        case "part":
            return sealer.part(PART, time_us)
        case "tick":
            return sealer.tick(time_us)
        case "pause":
            return sealer.pause("asked", time_us)
    return sealer.data(bytes(size), time_us, kind == "key")


@given(st.lists(STEPS, max_size=40))
def test_a_host_expects_the_chunks_that_the_platform_makes(steps: list[tuple[str, int, int]]) -> None:
    """Breaks: a chunk has no trace of its own, as its host has put two chunks into one."""
    sealer = FragmentSealer(UID, 0, HOST, KEYS.intake_public, GENESIS)
    fold = Fold(Identity("s-1", UID, "host-1", SETTINGS, (GENESIS, GENESIS)))
    expected = ExpectedChunk(SETTINGS.chunk_bytes, SETTINGS.chunk_max_seconds)
    time_us, begun, outputs = 1_000_000, [], list[Any]()
    for number, (kind, size, later_us) in enumerate([("part", 1, 0), *steps, ("final", 1, 0)], 1):
        time_us += later_us
        whole = sealer.final((), time_us) if kind == "final" else seal(sealer, kind, size, time_us)
        if expected.add(Header.parse(whole[:HEADER_BYTES])):
            begun.append(number - 1)
        outputs += fold.take(FoldedFragment.of(number, parse(whole)))
    assert begun == [one.first_seq for one in outputs if isinstance(one, Recorded)]
