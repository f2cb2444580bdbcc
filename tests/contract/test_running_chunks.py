"""How far the chunks of running sessions are, from their newest events. Real server."""

from infra.jetstream import Jet
from schemas import subjects
from streams.event_store import topology
from streams.projections.running_chunks import RunningChunks
from tests.support.pipeline.chunk_events import events_of


async def send(jet: Jet, session: str, step: str, index: int) -> None:
    recorded, *_, stored = events_of(index, session=session)
    event = recorded if step == subjects.RECORDED else stored
    await jet.publish(subjects.chunk(step, session), event.model_dump_json().encode())


async def test_a_session_whose_chunks_were_stored_in_another_order_has_no_lag(jet: Jet) -> None:
    """Breaks: a session with everything stored is shown as one that waits, above those that do."""
    await topology.declare(jet, 1 << 30)
    for index in range(3):
        await send(jet, "all", subjects.RECORDED, index)
        await send(jet, "behind", subjects.RECORDED, index)
    for index in (2, 1, 0):
        await send(jet, "all", subjects.STORED, index)
    await send(jet, "behind", subjects.STORED, 0)
    chunks = RunningChunks(jet)
    await chunks.look(["all", "behind"])
    shown = {name: (one.recorded, one.stored) for name, one in chunks.counts.items()}
    assert shown == {"all": (3, 3), "behind": (3, 1)}
    await send(jet, "behind", subjects.STORED, 2)
    await chunks.look(["all", "behind"])
    assert chunks.counts["behind"].stored == 3
