"""Sessions from start to seal, abort and destruction, through the real conductor, worker and commands."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from handlers.crypto.signatures import verify_signature
from infra.blobs.disk import DiskBlobs
from infra.keys.signers import Signers
from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.access import Role
from schemas.errors import Denied, Misuse, NotFound, RefusedByState
from schemas.events.chunk import Dead
from schemas.format import dsse
from schemas.format.file_names import tombstone_name
from schemas.format.fragment import Kind, parse
from schemas.format.trust import Tombstone
from streams.conductor import conductor
from streams.conductor.conductor import Conductor
from streams.control.client import call
from streams.event_store.recordings import Recordings
from streams.event_store.session_log import SessionLog
from streams.roles.services import run_conductor
from tests.support.pipeline.both_verifiers import verified
from tests.support.pipeline.conducted import World, connected, requested, running, system
from tests.support.pipeline.prepared import key_of


async def test_a_recording_is_sealed_by_itself_and_true_for_a_stranger(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: the whole purpose."""
    async with system(server, tmp_path) as world:
        host = await world.start("demo-01")
        await host.record(20)
        await host.final()
        shown = await world.until("demo-01", "STOPPED")
        manifest = await verified(world, "demo-01", tmp_path)
        assert (manifest.end, manifest.totals.fragments) == ("final", len(host.sent))
        assert shown["seal"]["root"] == manifest.merkle.root.hex()
        second = await world.start("demo-02")
        await second.record(3)
        await second.final()
        await world.until("demo-02", "STOPPED")
        other = await verified(world, "demo-02", tmp_path)
        assert other.host.prev_genesis == host.grant.genesis
        assert other.host.counter == 2


async def test_an_aborted_recording_is_sealed_with_everything_that_was_taken(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: `abort` loses the end, or names what it does not hold."""
    async with system(server, tmp_path) as world:
        host = await world.start("demo-01")
        await host.record(8)
        sending = asyncio.create_task(host.record(40, 1000))
        await asyncio.sleep(0.01)
        await world.ask("abort", "demo-01", reason="operator")
        await sending
        await world.until("demo-01", "STOPPED")
        manifest = await verified(world, "demo-01", tmp_path)
        assert (manifest.end, manifest.reason) == ("aborted", "operator")
        taken = [
            m
            async for m in (await Recordings.open(world.jet)).read_all(
                subjects.recording("host-1", "demo-01")
            )
        ]
        kinds = [parse(message.data).header.kind for message in taken]
        assert kinds.count(Kind.END) == 1
        assert manifest.totals.fragments == kinds.index(Kind.END)


async def test_an_abort_before_the_first_fragment_is_sealed_too(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: a session that was started and never used stays open for ever."""
    async with system(server, tmp_path) as world:
        await world.start("demo-01")
        await world.ask("abort", "demo-01")
        await world.until("demo-01", "STOPPED")
        manifest = await verified(world, "demo-01", tmp_path)
        assert manifest.chunks == ()
        assert manifest.tracks == ()


async def test_a_conductor_that_dies_at_any_moment_is_followed_by_one_that_finishes(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: a restart leaves a session unsealed, or seals it twice."""
    async with system(server, tmp_path) as world:
        host = await world.start("demo-01")
        await host.record(12)
    for delay_s in (0.0, 0.02, 0.05, 0.1):
        async with system(server, tmp_path, worker=False):
            await asyncio.sleep(delay_s)
    async with system(server, tmp_path) as world:
        host.jet = world.jet
        await host.final()
        await world.until("demo-01", "STOPPED")
        await verified(world, "demo-01", tmp_path)
        history = await SessionLog(world.jet).history("demo-01")
        assert sum(b'"type":"Sealed"' in line for line in history) == 1
        assert sum(b'"type":"SealStarted"' in line for line in history) == 1


async def test_two_conductors_at_once_do_what_one_does(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: a second conductor, started by mistake, forks a session."""
    async with system(server, tmp_path) as world, running(run_conductor, world):
        host = await world.start("demo-01")
        await host.record(12)
        await host.final()
        await world.until("demo-01", "STOPPED")
        await verified(world, "demo-01", tmp_path)
        history = await SessionLog(world.jet).history("demo-01")
        assert len(history) == 7, [line[:80] for line in history]


async def test_a_destroyed_session_leaves_its_history_and_a_tombstone(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: `destroy` says done, and something is left that a key could open."""
    async with system(server, tmp_path) as world:
        host = await world.start("demo-01")
        await host.record(12)
        await host.final()
        sealed = await world.until("demo-01", "STOPPED")
        DiskBlobs(world.data.quarantine).put(f"{host.grant.uid.hex()}/0000000001.aa", b"x")
        ann = world.here.issuer.issue("ann", (Role.ADMIN,), 60)
        asked = {"session": "demo-01", "reason": "retention_over", "who": "another"}
        with pytest.raises(Denied, match=r"access\.approver"):
            await call(world.jet, "destroy", {**asked, "approver": "boss"}, credential=lambda *_: ann)
        assert (await world.ask("show", "demo-01"))["state"] == "STOPPED"
        shown = await call(world.jet, "destroy", asked, credential=lambda *_: ann)
        assert (shown["state"], shown["shredded"]) == ("DESTROYED", True)
        uid = host.grant.uid.hex()
        assert not list((world.data.chunks / uid).glob("*"))
        assert DiskBlobs(world.data.quarantine).list(f"{uid}/") == []
        for stream, subject in (
            (
                (await Recordings.open(world.jet)).stream_of("demo-01"),
                subjects.recording("host-1", "demo-01"),
            ),
            (subjects.CHUNKS, subjects.chunk("*", "demo-01")),
        ):
            assert [m async for m in world.jet.read_all(stream, subject)] == []
        assert key_of(world.data.keys, host.grant.uid) == b""
        raw = DiskBlobs(world.data.manifests).read(tombstone_name(host.grant.uid))
        assert raw is not None
        envelope = dsse.parse(raw, dsse.TOMBSTONE)
        assert verify_signature(Signers(world.data.keys).at(0).public, envelope.signed, envelope.sig)
        told = Tombstone.within(envelope)
        assert (told.who, told.approver, told.reason) == ("ann", "none", "retention_over")
        assert told.manifest.hex() == sealed["seal"]["manifest"]
        assert shown["tombstone"] == envelope.digest.hex()
        with pytest.raises(RefusedByState):
            await world.ask("recover", "demo-01")


async def test_a_session_that_was_never_started_is_destroyed_and_its_name_stays_used(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: DESTROY hangs without a key, or a name comes back."""
    async with system(server, tmp_path, worker=False) as world:
        await call(world.jet, "create", requested("demo-01", 1).model_dump(mode="json"))
        shown = await world.ask("destroy", "demo-01")
        assert (shown["state"], shown["shredded"]) == ("DESTROYED", True)
        with pytest.raises(RefusedByState):
            await call(world.jet, "create", requested("demo-01", 2).model_dump(mode="json"))


async def test_a_held_session_is_not_destroyed(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: a court's order does not reach the shredder."""
    async with system(server, tmp_path, worker=False) as world:
        await world.start("demo-01")
        await world.ask("hold", "demo-01", held=True, reason="court")
        with pytest.raises(RefusedByState, match="under legal hold"):
            await world.ask("destroy", "demo-01")


async def forget_stored(world: World, index: int) -> None:
    """Take back that a chunk of demo-01 was stored."""
    subject = subjects.chunk(subjects.STORED, "demo-01")
    async for message in world.jet.read_all(subjects.CHUNKS, subject):
        if json.loads(message.data)["index"] == index:
            await world.jet.delete(subjects.CHUNKS, message.seq)


async def test_a_dead_chunk_stops_the_session_and_recovery_or_loss_ends_it(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: one chunk that cannot be made holds a recording's seal back for ever."""
    async with system(server, tmp_path, worker=False) as world:
        host = await world.start("demo-01")
        dead = Dead(stage="store", session="demo-01", index=1, code="store.io", message="disk died")
        async with running(_worker, world):
            await host.record(16)
            await world.stored("demo-01", 3)
        uid = host.grant.uid.hex()
        (world.data.chunks / uid / "0000000001").unlink()
        await forget_stored(world, 1)
        await forget_stored(world, 0)
    # A fresh conductor: what it knew of the chunk is gone, as the chunk is.
    async with system(server, tmp_path, worker=False) as world:
        host.jet = world.jet
        await world.jet.publish(subjects.dead("store", "demo-01"), dead.model_dump_json().encode())
        shown = await world.until("demo-01", "ERROR")
        assert shown["reason"] == "store.io.1"
        shown = await world.ask("recover", "demo-01", accept_loss=True, reason="disk_died")
        assert shown["lost"] == {"1": "disk_died"}, "what is only on its way is not given up"
        async with running(_worker, world):
            await host.final()
            await world.until("demo-01", "STOPPED")
            manifest = await verified(world, "demo-01", tmp_path)
        assert manifest.chunks[1].sealed == 0
        assert [gap.reason for gap in manifest.gaps] == ["disk_died"]


async def test_a_dead_chunk_is_told_though_its_recorded_was_not_heard_yet(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: nobody learns for a minute that a recording has lost a chunk."""
    wake_on = Conductor._wake_on

    async def deaf(one: Conductor, stream: str, filters: list[str]) -> None:
        if stream != subjects.CHUNKS:
            await wake_on(one, stream, filters)

    monkeypatch.setattr(Conductor, "_wake_on", deaf)
    monkeypatch.setattr(conductor, "IDLE_SWEEPS", 1_000_000)
    async with system(server, tmp_path, worker=False) as world:
        host = await world.start("demo-01")
        async with running(_worker, world):
            await host.record(16)
            await world.stored("demo-01", 3)
        await forget_stored(world, 1)
        dead = Dead(stage="store", session="demo-01", index=1, code="store.io", message="disk died")
        await world.jet.publish(subjects.dead("store", "demo-01"), dead.model_dump_json().encode())
        assert (await world.until("demo-01", "ERROR"))["reason"] == "store.io.1"


async def test_recovery_drives_a_missing_chunk_again(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: RECOVER says ACTIVE, and the chunk never comes."""
    async with system(server, tmp_path) as world:
        host = await world.start("demo-01")
        await host.record(12)
        await world.stored("demo-01", 2)
    found = DiskBlobs(world.data.chunks)
    name = f"{host.grant.uid.hex()}/0000000001"
    async with system(server, tmp_path, worker=False) as world:
        wanted = found.read(name)
        (world.data.chunks / name).unlink()
        await forget_stored(world, 1)
    async with system(server, tmp_path) as world:
        await world.ask("error", "demo-01")
        shown = await world.ask("recover", "demo-01")
        assert shown["run"] == 1
        host.jet = world.jet
        await host.final()
        await world.until("demo-01", "STOPPED")
        assert found.read(name) == wanted
        await verified(world, "demo-01", tmp_path)


async def test_pause_and_resume_are_complete_by_themselves(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: PAUSING for ever."""
    async with system(server, tmp_path) as world:
        host = await world.start("demo-01")
        await host.record(8)
        await world.ask("pause", "demo-01")
        await world.until("demo-01", "PAUSED")
        assert (await world.ask("resume", "demo-01"))["state"] == "ACTIVE"


async def test_keys_are_rotated_under_running_sessions(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: a rotation stops recordings, or what was recorded before."""
    async with system(server, tmp_path) as world:
        host = await world.start("demo-01")
        await host.record(8)
        done = await call(world.jet, "rotate", {})
        assert (done["version"], done["rewrapped"]) == (2, 1)
        await host.record(8)
        await host.final()
        await world.until("demo-01", "STOPPED")
        await verified(world, "demo-01", tmp_path)


async def test_errors_cross_the_wire_as_what_they_are(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: a verb exits with the wrong code."""
    async with system(server, tmp_path, worker=False) as world:
        with pytest.raises(NotFound) as absent:
            await world.ask("show", "nobody")
        assert absent.value.code == "session.absent"
        await world.start("demo-01")
        with pytest.raises(RefusedByState) as refused:
            await world.ask("resume", "demo-01")
        assert refused.value.code == "state.refused"
        with pytest.raises(Misuse) as misuse:
            await world.ask("stop", "demo-01", resaon="typo")
        assert misuse.value.code == "command.form"
        for body in (b"", b"[]", b"{", b"\xff", b'{"token": 3}'):
            raw = await world.jet.request(subjects.command("stop"), body)
            assert b'"error"' in raw
        listed = await call(world.jet, "list", {})
        assert [one["session"] for one in listed["sessions"]] == ["demo-01"]
        assert "intake" not in listed["sessions"][0]


async def test_a_host_that_asks_again_after_a_crash_gets_the_same_session(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: a crash between `create` and `start` costs the session its name."""
    async with system(server, tmp_path, worker=False) as world:
        first = await world.start("demo-01")
        state = world.data.host("host-1") / "state.json"
        state.write_text(f'{{"counter": 1, "genesis": "{"00" * 32}", "pending": "demo-01"}}')
        again = await world.start("demo-01")
        assert (again.grant.uid, again.grant.genesis) == (first.grant.uid, first.grant.genesis)
        assert again.grant.intake_public == first.grant.intake_public


async def test_a_copied_host_folder_cannot_take_a_counter_twice(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: two sessions with one uid share files and keys."""
    async with system(server, tmp_path, worker=False) as world:
        await world.start("demo-01")
        state = world.data.host("host-1") / "state.json"
        state.write_text(f'{{"counter": 0, "genesis": "{"00" * 32}", "pending": ""}}')
        with pytest.raises(RefusedByState) as refused:
            await world.start("demo-02")
        assert refused.value.code == "host.counter"
        with pytest.raises(NotFound):
            await world.ask("show", "demo-02")


async def _worker(*parts: object) -> None:
    from streams.roles.services import run_worker

    await run_worker(*parts)  # type: ignore[arg-type]


async def test_no_more_sessions_start_than_are_allowed(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: one host too many starves every recording."""
    async with connected(server, tmp_path) as world:
        world.settings = replace(world.settings, max_sessions=1)
        async with running(run_conductor, world):
            await world.answered()
            await world.start("demo-01")
            with pytest.raises(RefusedByState) as refused:
                await world.start("demo-02")
            assert refused.value.code == "sessions.limit"
            await world.ask("abort", "demo-01")
            await world.ask("error", "demo-01")
            await world.start("demo-02")
