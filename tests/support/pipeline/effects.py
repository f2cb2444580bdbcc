"""Sessions that meet one fault each, and the side effects of every role by name."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping

from handlers.lifecycle.session import Session
from infra.blobs.disk import DiskBlobs
from schemas import subjects
from schemas.events.commands import Start
from schemas.format import dsse
from schemas.format.digest import h
from schemas.format.manifest import Manifest
from streams.event_store.session_directory import SessionDirectory
from streams.event_store.session_log import SessionLog
from tests.support.pipeline.conducted import World
from tests.support.pipeline.faulty import (
    Row,
    ended,
    rows,
)
from tests.support.pipeline.prepared import Outcome, Prepared, Step, outcome

STEPS: list[Step] = [("data", 60_000)] * 6


CHUNKS = 2


PATIENCE_S = 120


WORKER_EFFECTS = {
    "append recorded": CHUNKS + 1,
    "publish chunked": CHUNKS,
    "publish compressed": CHUNKS,
    "publish encrypted": CHUNKS,
    "publish proven": CHUNKS,
    "put chunks": CHUNKS,
    "read chunks": CHUNKS,
    "publish stored": CHUNKS,
    "ack chunk": CHUNKS + 1,
    "ack compress": CHUNKS,
    "ack encrypt": CHUNKS,
    "ack merkle": CHUNKS,
    "ack store": CHUNKS,
}
"""Of one session. `recorded` and `chunk` see the end, too."""


SEAL_EFFECTS = {
    "make key": 1,
    "append lifecycle": 5,
    "put chunks": 1,
    "read chunks": 1,
    "put manifests": 1,
    "read manifests": 1,
}
"""StartCompleted, Stop, SealStarted, Sealed, StopComplete; the index chunk and the manifest."""


def prepare(names: list[str]) -> dict[str, Prepared]:
    return {name: Prepared(name, number, STEPS) for number, name in enumerate(names, 1)}


def by_uid(sessions: Mapping[str, Prepared]) -> dict[str, str]:
    return {one.uid.hex(): name for name, one in sessions.items()}


def table(effects: Mapping[str, int], *dies: bool) -> dict[str, Row]:
    return {row.session: row for row in rows(effects, dies)}


async def begin(world: World, prepared: Prepared) -> None:
    """The session's own key made, the session started; StartCompleted is the conductor's."""
    await asyncio.to_thread(prepared.make_key, world.data.keys)
    log = SessionLog(world.jet)
    await log.execute(prepared.create())
    await log.execute(Start(session=prepared.session, at_us=2, who="host-1", cause="start"))


async def send(world: World, prepared: Prepared) -> None:
    for whole in prepared.fragments:
        await world.jet.publish(prepared.subject, whole)


Work = Callable[[World, Prepared], Coroutine[None, None, None]]


async def each(work: Work, world: World, sessions: Mapping[str, Prepared]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for prepared in sessions.values():
            tasks.create_task(work(world, prepared))


async def sealed(world: World, sessions: Mapping[str, Prepared]) -> None:
    """Wait for every seal, then compare roots, files and manifests with what the fragments always give."""
    directory = SessionDirectory(world.jet)
    following = asyncio.create_task(directory.run())
    try:
        async with asyncio.timeout(PATIENCE_S):
            for name in sessions:
                await directory.until(name, lambda one: one.state == "STOPPED" and one.sealed)
    except TimeoutError:
        states = {one.id: one.state for one in directory.sessions() if not one.sealed}
        raise AssertionError(f"not sealed: {states}") from None
    finally:
        await ended([following])
    for name, prepared in sessions.items():
        session = directory.get(name)
        assert session is not None
        check_sealed(world, prepared, session, outcome(prepared))
    assert [m async for m in world.jet.read_all(subjects.DEAD, "lucid.dead.>")] == []


def check_sealed(world: World, prepared: Prepared, session: Session, expected: Outcome) -> None:
    uid = prepared.uid.hex()
    (seal,) = session.seals
    assert seal.root == expected.root, session.id
    chunks, manifests = DiskBlobs(world.data.chunks), DiskBlobs(world.data.manifests)
    names = [f"{uid}/{index:010}" for index in range(len(expected.digests))]
    assert chunks.list(f"{uid}/") == names, session.id
    assert [h(chunks.read(name) or b"") for name in names] == expected.digests, session.id
    assert manifests.list(f"{uid}/") == [f"{uid}/1"], session.id
    manifest = Manifest.within(dsse.parse(manifests.read(f"{uid}/1") or b"", dsse.MANIFEST))
    assert manifest.merkle.root == expected.root
    assert DiskBlobs(world.data.quarantine).list(f"{uid}/") == []
