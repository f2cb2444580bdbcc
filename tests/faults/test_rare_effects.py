"""Effects of what is rare, struck like those of every day: an abort, a recovery, false files in the store.

What a calm session does tells again whether every effect of its kind has rows.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from infra.blobs.disk import DiskBlobs
from infra.nats_server.server import NatsServer
from schemas.events.commands import Error, Recover, RequestEnd
from schemas.format import dsse
from schemas.format.digest import h
from schemas.format.fragment import Kind, parse
from schemas.format.manifest import Manifest
from streams.event_store.chunk_progress import ChunkProgress
from streams.event_store.recordings import Recordings
from streams.event_store.session_directory import SessionDirectory
from streams.event_store.session_log import SessionLog
from streams.roles.services import run_conductor, run_worker
from tests.support.pipeline.conducted import World, connected, running
from tests.support.pipeline.effects import (
    CHUNKS,
    PATIENCE_S,
    SEAL_EFFECTS,
    WORKER_EFFECTS,
    begin,
    by_uid,
    each,
    prepare,
    sealed,
    send,
    table,
)
from tests.support.pipeline.faulty import CALM, Faults, struck_conductor, struck_worker
from tests.support.pipeline.prepared import Prepared, outcome
from tests.support.pipeline.record_stage import ended as recorded_to_its_end
from tests.support.pipeline.record_stage import record_stage

END_EFFECTS = {"publish rec": 1}
REDRIVE_EFFECTS = {"publish redriven": CHUNKS}
FALSE = b"not what was sealed"
FALSE_SEAL_EFFECTS = {"quarantine chunks": 1, "quarantine manifests": 1}
FALSE_CHUNK_EFFECTS = {"quarantine chunks": 1, "publish dead": 1}


async def test_every_effect_of_an_abort_may_fail(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: an `end` whose answer is lost is sent twice or never, and the session is not sealed."""
    struck = table(END_EFFECTS, False)
    sessions = prepare([CALM, *struck])
    faults = Faults(struck, by_uid(sessions))
    async with connected(server, tmp_path) as world:
        async with running(run_conductor, world), running(run_worker, world):
            await each(begin, world, sessions)
            for prepared in sessions.values():
                for whole in prepared.fragments[:-1]:
                    await world.jet.publish(prepared.subject, whole)
                await world.stored(prepared.session, 1)
        for name in sessions:
            asked = RequestEnd(session=name, at_us=9, who="ann", cause="abort", end="aborted", reason="over")
            await SessionLog(world.jet).execute(asked)
        async with running(run_worker, world):
            async with struck_conductor(world.jet, world.data, faults) as directory:
                await stopped(directory, sessions)
            await faults.all_struck(PATIENCE_S)
        for prepared in sessions.values():
            await check_aborted(world, prepared)
    check_done(faults, END_EFFECTS)


async def check_aborted(world: World, prepared: Prepared) -> None:
    found = (await Recordings.open(world.jet)).read_all(prepared.subject)
    kinds = [parse(message.data).header.kind async for message in found]
    assert kinds == [*prepared.kinds[:-1], Kind.END], prepared.session
    manifest = manifest_of(world, prepared)
    assert (manifest.end, manifest.totals.fragments) == ("aborted", len(prepared.fragments) - 1)
    check_files(world, prepared, manifest)


async def test_every_effect_of_a_recovery_may_fail(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: a claim is given out to nobody, and the recovered session is never sealed."""
    struck = table(REDRIVE_EFFECTS, False)
    sessions = prepare([CALM, *struck])
    faults = Faults(struck, by_uid(sessions))
    async with connected(server, tmp_path) as world:
        async with running(run_conductor, world):
            await each(begin, world, sessions)
            async with record_stage(world.jet):
                await each(send, world, sessions)
                for prepared in sessions.values():
                    await recorded_to_its_end(world.jet, prepared)
        log = SessionLog(world.jet)
        for name in sessions:
            await log.execute(Error(session=name, at_us=5, who="ann", cause="error", reason="disk"))
            await log.execute(Recover(session=name, at_us=6, who="ann", cause="again", chunks=CHUNKS))
        async with struck_conductor(world.jet, world.data, faults) as directory:
            await faults.all_struck(PATIENCE_S)
            await stopped(directory, sessions, "STOPPING")
            for name in sessions:
                known = ChunkProgress(name)
                await known.read_on(world.jet)
                assert known.driven == dict.fromkeys(range(CHUNKS), 1), name
            async with running(run_worker, world):
                await sealed(world, sessions)
    check_done(faults, REDRIVE_EFFECTS)


async def test_every_effect_of_a_false_file_in_a_seals_way_may_fail(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: a file that stands where a seal belongs stops it for ever, or is thrown away."""
    struck = table(FALSE_SEAL_EFFECTS, False)
    sessions = prepare([CALM, *struck])
    faults = Faults(struck, by_uid(sessions))
    async with connected(server, tmp_path) as world:
        async with running(run_conductor, world):
            await each(begin, world, sessions)
        for prepared in sessions.values():
            DiskBlobs(world.data.chunks).put(f"{prepared.uid.hex()}/{CHUNKS:010}", FALSE)
            DiskBlobs(world.data.manifests).put(f"{prepared.uid.hex()}/1", FALSE)
        async with (
            running(run_worker, world),
            struck_conductor(world.jet, world.data, faults) as directory,
        ):
            await each(send, world, sessions)
            await stopped(directory, sessions)
        for prepared in sessions.values():
            check_files(world, prepared, manifest_of(world, prepared))
            assert quarantined(world, prepared) == [FALSE, FALSE], prepared.session
    check_done(faults, FALSE_SEAL_EFFECTS)


async def test_every_effect_of_a_false_file_in_a_chunks_way_may_fail(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: a file that stands where a chunk belongs is taken for it, or is thrown away."""
    struck = table(FALSE_CHUNK_EFFECTS, False, True)
    sessions = prepare([CALM, *struck])
    faults = Faults(struck, by_uid(sessions))
    async with connected(server, tmp_path) as world, running(run_conductor, world):
        await each(begin, world, sessions)
        for prepared in sessions.values():
            DiskBlobs(world.data.chunks).put(f"{prepared.uid.hex()}/{0:010}", FALSE)
        await each(send, world, sessions)
        async with struck_worker(world.jet, world.data, faults):
            await faults.all_struck(PATIENCE_S)
            await world.until(CALM, "ERROR")
        assert (await world.ask("show", CALM))["reason"] == "store.false.0"
        async with running(run_worker, world):
            for name in sessions:
                shown = await world.until(name, "ERROR", "STOPPED")
                if shown["state"] == "ERROR":
                    await world.ask("recover", name)
                    await world.until(name, "STOPPED")
        for prepared in sessions.values():
            check_files(world, prepared, manifest_of(world, prepared))
            assert quarantined(world, prepared) == [FALSE], prepared.session
    check_done(faults, FALSE_CHUNK_EFFECTS)


async def stopped(
    directory: SessionDirectory, sessions: Mapping[str, Prepared], state: str = "STOPPED"
) -> None:
    async with asyncio.timeout(PATIENCE_S):
        for name in sessions:
            await directory.until(name, lambda one: one.state == state)


def manifest_of(world: World, prepared: Prepared) -> Manifest:
    raw = DiskBlobs(world.data.manifests).read(f"{prepared.uid.hex()}/1")
    assert raw is not None
    return Manifest.within(dsse.parse(raw, dsse.MANIFEST))


def check_files(world: World, prepared: Prepared, manifest: Manifest) -> None:
    """Every file is what the manifest says, and there is no other; of a whole recording, what it must be."""
    chunks, uid = DiskBlobs(world.data.chunks), prepared.uid.hex()
    listed = [item.entry for item in (*manifest.chunks, *manifest.index)]
    assert chunks.list(f"{uid}/") == [f"{uid}/{entry.index:010}" for entry in listed], prepared.session
    for entry in listed:
        assert h(chunks.read(f"{uid}/{entry.index:010}") or b"") == entry.digest, prepared.session
    if manifest.end == "final":
        assert manifest.merkle.root == outcome(prepared).root, prepared.session


def quarantined(world: World, prepared: Prepared) -> list[bytes | None]:
    kept = DiskBlobs(world.data.quarantine)
    return [kept.read(name) for name in kept.list(f"{prepared.uid.hex()}/")]


def check_done(faults: Faults, effects: Mapping[str, int]) -> None:
    """Of the kinds of effects that are struck here, the calm session has as many as there are rows."""
    done = {effect: count for effect, count in faults.done[CALM].items() if effect in effects}
    assert done == effects, "an effect has no rows, or rows without effect"
    assert faults.done[CALM].keys() <= {*effects, *SEAL_EFFECTS, *WORKER_EFFECTS}
