"""The same bytes under the same keys become the same files and the same root, whatever happens on the way.

Every session here is compared with what the pure functions make of it in order, in memory.
"""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from handlers.evidence.replay import Judgement
from infra.blobs.disk import DiskBlobs
from schemas import subjects
from schemas.errors import Rejected
from schemas.events.chunk import Dead
from streams.control.client import call
from streams.event_store.recordings import Recordings
from streams.event_store.session_log import SessionLog
from streams.evidence.replay import Replay, Replayed
from streams.evidence.sealing import material_of
from streams.scheduling.threads import Threads
from tests.support.machine.waiting import PATIENCE_S
from tests.support.pipeline.faulty import key_store
from tests.support.pipeline.prepared import Prepared, Step, disturbed, outcome
from tests.support.pipeline.processes import Processes, processes

EXAMPLES = 12
STEP = st.one_of(
    st.tuples(st.sampled_from(["data", "data", "data", "key"]), st.integers(0, 120_000)),
    st.tuples(st.sampled_from(["tick", "pause", "part"]), st.just(0)),
    st.tuples(st.just("wait"), st.integers(1, 70)),
)
STEPS: list[Step] = [
    *[("data", 60_000)] * 20,
    ("key", 60_000),
    ("pause", 0),
    ("wait", 61),
    ("part", 0),
    *[("data", 60_000)] * 5,
]
counters = itertools.count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory, shards: int) -> AsyncIterator[Processes]:
    """A system with two workers that own the same partitions."""
    async with processes(tmp_path_factory.mktemp("pair"), workers=2) as system:
        assert (await Recordings.open(system.jet)).shards == shards
        yield system


@pytest.mark.asyncio(loop_scope="module")
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],  # an example takes a second, so none is made smaller
)
@given(steps=st.lists(STEP, min_size=10, max_size=60), chooser=st.randoms(use_true_random=True))
async def test_no_interleaving_changes_a_sealed_byte(
    pair: Processes, steps: list[Step], chooser: random.Random
) -> None:
    """Breaks: two recordings of one screen differ, so a replay proves nothing and two workers forge."""
    counter = next(counters)
    prepared = Prepared(f"drawn-{counter}", counter, steps)
    expected = outcome(prepared)
    await pair.begin(prepared)
    await pair.send(prepared, disturbed(prepared, chooser, doubles=0.3, delays=0.4))
    await pair.check(prepared, expected)


async def test_one_recording_is_the_same_files_in_any_system(tmp_path: Path) -> None:
    """Breaks: what one installation sealed cannot be made again by another, or after a disaster."""
    prepared = Prepared("same-01", 1, STEPS)
    expected = outcome(prepared)
    async with processes(tmp_path / "calm") as system:
        await system.begin(prepared)
        await system.send(prepared)
        await system.check(prepared, expected)
        calm = files(system, prepared)
    async with processes(tmp_path / "disturbed", workers=2) as system:
        await system.begin(prepared)
        await system.send(prepared, disturbed(prepared, random.Random(5)))
        await system.check(prepared, expected)
        assert files(system, prepared) == calm
        await check_replay(system, prepared, calm)
        await system.check(prepared, expected)


async def check_replay(system: Processes, prepared: Prepared, calm: dict[str, bytes]) -> None:
    """Damage the store, replay, and find it as it was; then replay again and find nothing to do."""
    names = sorted(calm)
    (system.data.chunks / names[0]).unlink()
    (system.data.chunks / names[-1]).unlink()
    flipped = bytearray(calm[names[3]])
    flipped[200] ^= 1
    (system.data.chunks / names[3]).write_bytes(flipped)
    mended = [one.index for one in await replayed(system, prepared) if one.outcome is Judgement.RESTORED]
    assert mended == [0, 3, len(names) - 1]
    assert files(system, prepared) == calm
    (kept,) = DiskBlobs(system.data.quarantine).list(prepared.uid.hex())
    assert (system.data.quarantine / kept).read_bytes() == flipped
    assert {one.outcome for one in await replayed(system, prepared)} == {Judgement.SAME}
    (system.data.quarantine / kept).unlink()


async def replayed(system: Processes, prepared: Prepared) -> list[Replayed]:
    log, chunks = SessionLog(system.jet), DiskBlobs(system.data.chunks)
    material = await material_of(system.jet, log, await log.load(prepared.session))
    keys = await key_store(system.data).open(prepared.uid)
    assert keys is not None
    recordings = await Recordings.open(system.jet)
    with Threads() as threads:
        replay = Replay(recordings, chunks, threads, keys, system.manifest(prepared), material)
        return [one async for one in replay.run()]


async def test_a_source_that_is_gone_is_said_and_changes_nothing(pair_alone: Processes) -> None:
    """Breaks: a replay without its source reports success, or takes away the only good files."""
    prepared = Prepared("gone-01", 9001, STEPS)
    expected = outcome(prepared)
    await pair_alone.begin(prepared)
    await pair_alone.send(prepared)
    await pair_alone.check(prepared, expected)
    await (await Recordings.open(pair_alone.jet)).purge(prepared.subject)
    with pytest.raises(Rejected) as error:
        await replayed(pair_alone, prepared)
    assert error.value.code == "chunk.source_gone"
    await pair_alone.check(prepared, expected)


async def test_a_chunk_that_died_is_recovered_to_the_same_root(pair_alone: Processes) -> None:
    """Breaks: an operator recovers a session and seals another recording."""
    prepared = Prepared("died-01", 9002, STEPS)
    expected = outcome(prepared)
    await pair_alone.begin(prepared)
    foreign = f"{prepared.uid.hex()}/{3:010}"
    DiskBlobs(pair_alone.data.chunks).put(foreign, b"not ours")
    await pair_alone.send(prepared)
    await until_state(pair_alone, prepared, "ERROR")
    (raw,) = [m.data async for m in pair_alone.jet.read_all(subjects.DEAD, subjects.dead("store", "died-01"))]
    dead = Dead.model_validate_json(raw)
    assert (dead.code, dead.index) == ("store.false", 3)
    await call(pair_alone.jet, "recover", {"session": "died-01"})
    assert (await pair_alone.sealed("died-01"))["run"] == 1
    (kept,) = DiskBlobs(pair_alone.data.quarantine).list(prepared.uid.hex())
    (pair_alone.data.quarantine / kept).unlink()
    await pair_alone.check(prepared, expected)


@pytest_asyncio.fixture
async def pair_alone(tmp_path: Path) -> AsyncIterator[Processes]:
    async with processes(tmp_path, workers=2) as system:
        yield system


async def until_state(system: Processes, prepared: Prepared, state: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while (await system.show(prepared.session))["state"] != state:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def files(system: Processes, prepared: Prepared) -> dict[str, bytes]:
    """Every sealed file of the session, by name."""
    blobs = DiskBlobs(system.data.chunks)
    return {name: blobs.read(name) or b"" for name in blobs.list(f"{prepared.uid.hex()}/")}
