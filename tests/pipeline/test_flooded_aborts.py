"""Hosts that flood the stream and heed nothing are ended all the same, and nothing of theirs is lost."""

import os
import signal
from pathlib import Path

import pytest

from handlers.stages.record.admit import admit
from handlers.stages.record.fold import Fold
from handlers.stages.record.pieces import FoldedFragment, Identity
from infra.jetstream import Jet
from infra.keys.signers import Signers
from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.events.chunk import Ended, Recorded
from schemas.format.fragment import Fragment, Kind, parse
from schemas.ports.messages import Message
from streams.control.client import call
from streams.event_store.chunk_log import recorded_events
from streams.event_store.recordings import Recordings
from streams.event_store.session_log import SessionLog
from streams.host.publisher import Grant
from tests.support.pipeline.both_verifiers import verified
from tests.support.pipeline.conducted import World, system
from tests.support.pipeline.flood import flood
from tests.support.pipeline.prepared import HOST, HOST_KEY, Prepared
from tests.support.pipeline.processes import processes, quick_restarts

SESSION = "demo-01"


async def admitted(jet: Jet, data: Path) -> list[FoldedFragment]:
    """What the stream holds of the session, without what is no fragment."""
    created = (await SessionLog(jet).load(SESSION)).created
    assert created is not None
    signers = Signers(data).public_keys
    found = (await Recordings.open(jet)).read_all(subjects.recording("host-1", SESSION))
    looked_at = [(message.seq, admit(message.data, created.host_key, signers)) async for message in found]
    return [FoldedFragment.of(seq, one) for seq, one in looked_at if isinstance(one, Fragment)]


async def check_fold(jet: Jet, keys: Path) -> int:
    """What was recorded is what the stream says, to the byte; how many fragments stand before its `end`."""
    session = await SessionLog(jet).load(SESSION)
    assert session.created is not None
    pieces = await admitted(jet, keys)
    fold = Fold(Identity.of(session.created, session.intake))
    outputs = [output for piece in pieces for output in fold.take(piece)]
    wanted = [output for output in outputs if isinstance(output, Recorded | Ended)]
    assert [event async for event in recorded_events(jet, SESSION)] == wanted
    return [piece.header.kind for piece in pieces].index(Kind.END)


async def check_aborted(world: World, path: Path) -> None:
    manifest = await verified(world, SESSION, path)
    assert (manifest.end, manifest.reason) == ("aborted", "operator")
    assert manifest.totals.fragments == await check_fold(world.jet, world.data.keys)


@pytest.mark.parametrize("what", ["signed", "garbage"])
async def test_a_host_that_floods_its_session_does_not_keep_an_abort_out(
    server: NatsServer, tmp_path: Path, what: str
) -> None:
    """Breaks: who has a host's credentials decides that its recording never ends."""
    async with system(server, tmp_path) as world:
        host = await world.start(SESSION)
        async with flood(world.jet, host.grant, what):
            await world.ask("abort", SESSION, reason="operator")
            await world.until(SESSION, "STOPPED")
        await check_aborted(world, tmp_path)


async def until_marked(jet: Jet, start: int) -> None:
    """Return when the platform's `end` stands in the stream, at `start` or later."""
    stream = (await Recordings.open(jet)).stream_of(SESSION)
    async for item in jet.follow(stream, [subjects.recording(HOST, SESSION)], start):
        if isinstance(item, Message) and parse(item.data).header.kind is Kind.END:
            return


async def test_two_workers_that_are_killed_end_a_flooded_recording_in_one_place(tmp_path: Path) -> None:
    """Breaks: owners of one session, or a restart, or a replay, disagree about where it ended."""
    one = Prepared(SESSION, 1, [])
    keys = {"sign_key": HOST_KEY, "intake_public": one.keys.intake_public, "genesis": one.genesis[0]}
    grant = Grant(SESSION, HOST, one.uid, chunk_bytes=one.settings.chunk_bytes, **keys)
    with quick_restarts():
        async with processes(tmp_path, workers=2) as system:
            await system.begin(one)
            async with flood(system.jet, grant):
                recordings = await Recordings.open(system.jet)
                start = (await recordings.info(recordings.stream_of(SESSION))).last_seq
                await call(system.jet, "abort", {"session": SESSION, "reason": "operator"})
                os.kill(system.victims["conductor"], signal.SIGKILL)
                await until_marked(system.jet, start)
                for name in ("worker", "worker-2"):
                    os.kill(system.victims[name], signal.SIGKILL)
                shown = await system.sealed(SESSION)
            manifest = system.manifest(one)
            assert manifest.end == "aborted"
            assert manifest.totals.fragments == await check_fold(system.jet, system.data.keys)
            exit_code, said = await system.lucid("replay", SESSION)
            assert exit_code == 0, said
            assert (await system.show(SESSION))["seal"] == shown["seal"]
            exit_code, said = await system.lucid("verify", SESSION)
            assert exit_code == 0, said
