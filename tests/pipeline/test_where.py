"""`where` says where each chunk is, at any moment: compared with the streams. Real server, real workers."""

import asyncio
import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from handlers.views import chunk_places
from handlers.views.chunk_places import ChunkPlaces
from infra.jetstream import Jet
from infra.nats_server.server import NatsServer
from schemas import subjects
from schemas.types import Frozen
from streams.control.client import call
from streams.event_store.session_log import SessionLog
from streams.projections.session_places import PlacesOfSessions
from streams.roles.services import run_conductor, run_worker
from tests.support.machine.waiting import PATIENCE_S
from tests.support.pipeline.conducted import World, connected, running, system
from tests.support.pipeline.prepared import Prepared
from tests.support.pipeline.processes import processes

ORDER = {
    "recorded": "chunk",
    "chunked": "compress",
    "compressed": "encrypt",
    "encrypted": "merkle",
    "proven": "store",
    "stored": "stored",
}
LOOKS = 25
CHUNKS = 24


async def stages_in(jet: Jet, session: str, at: int) -> dict[int, str]:
    """The stage of each chunk, from the subjects of its events in CHUNKS up to a sequence."""
    found: dict[int, str] = {}
    for step, stage in ORDER.items():
        async for message in jet.read_all(subjects.CHUNKS, subjects.chunk(step, session)):
            body = json.loads(message.data)
            if message.seq <= at and "ended" not in body["type"]:
                found[body["index"]] = stage
    return found


async def whole(jet: Jet, session: str, limit: int = 7) -> dict[str, Any]:
    """The first page of `where`; limit: chunks on it."""
    return await call(jet, "where", {"session": session, "limit": limit}, PATIENCE_S)


async def test_where_is_right_at_any_moment_of_a_session_whose_worker_stops_and_goes(tmp_path: Path) -> None:
    """Breaks: an engineer on call looks for a chunk at a stage where it is not."""
    chooser = random.Random()
    prepared = Prepared("demo-01", 1, (("data", 60_000),) * (5 * CHUNKS))
    async with processes(tmp_path) as running:
        await running.begin(prepared)
        pid, seen, expected = running.workers[0].pid, set[str](), list[int]()
        assert pid
        numbers = range(len(prepared.fragments) - 1)
        slices = [numbers[look::LOOKS] for look in range(LOOKS)]
        position = 0
        for part in slices:
            order = range(position, position + len(part))
            position += len(part)
            sending = asyncio.create_task(running.send(prepared, order))
            await asyncio.sleep(chooser.uniform(0, 0.05))
            os.kill(pid, signal.SIGSTOP)
            try:
                before = (await running.jet.info(subjects.CHUNKS)).last_seq
                answer = await whole(running.jet, "demo-01", 1000)
            finally:
                os.kill(pid, signal.SIGCONT)
            await sending
            assert answer["at"]["chunks"] >= before
            wanted = await stages_in(running.jet, "demo-01", answer["at"]["chunks"])
            assert {one["index"]: one["stage"] for one in answer["chunks"]} == wanted
            assert answer["recorded"] == len(wanted)
            stored = sum(stage == "stored" for stage in wanted.values())
            assert answer["stages"].get("stored", 0) == stored
            assert answer["pending"] == len(wanted) - stored
            # two stored chunks tell the pace, and only what is under way is expected
            if answer["pending"] and stored > 1:
                assert answer["expected_us"] > answer["now_us"]
                expected.append(answer["expected_us"])
            else:
                assert answer["expected_us"] is None
            seen |= set(wanted.values())
        await running.send(prepared, [len(numbers)])
        await running.sealed("demo-01")
        assert "stored" in seen
        assert seen - {"stored"}, "no look found a chunk under way"
        assert expected, "no look told when the rest is stored"
        sealed = await whole(running.jet, "demo-01")
        assert sealed["stages"] == {"stored": sealed["recorded"]}
        assert (sealed["pending"], sealed["waiting"], sealed["expected_us"]) == (0, 0, None)


async def test_the_pages_of_where_hold_each_chunk_once(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: a long session shows a chunk twice or not at all, page by page, before and after its seal."""
    async with system(server, tmp_path) as world:
        host = await world.start("demo-01")
        await host.record(60)
        await world.stored("demo-01", 11)  # all that 60 fragments fill
        assert await paged(world) == list(range((await whole(world.jet, "demo-01"))["recorded"]))
        await host.final()
        await world.until("demo-01", "STOPPED")
        count = (await whole(world.jet, "demo-01"))["recorded"]
        assert await paged(world) == list(range(count))
        left = await world.ask("where", "demo-01", unstored=True)
        assert (left["chunks"], left["next"], left["more"]) == ([], None, 0)


async def paged(world: World) -> list[int]:
    found: list[int] = []
    after: int | None = -1
    while after is not None:
        page = await world.ask("where", "demo-01", after=after, limit=3)
        assert len(page["chunks"]) <= 3
        found += [one["index"] for one in page["chunks"]]
        after = page["next"]
    return found


async def test_a_stage_that_fails_shows_its_tries_its_error_and_what_waits(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: nobody can tell why a chunk does not arrive, or that it is tried again."""
    async with system(server, tmp_path) as world:
        host = await world.start("demo-01")
        chunks = world.data.chunks
        chunks.mkdir(parents=True, exist_ok=True)
        uid = (await world.ask("show", "demo-01"))["uid"]
        (chunks / uid).write_text("in the way")
        await host.record(14)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = await whole(world.jet, "demo-01")
                first: dict[str, Any] = (found["chunks"] or [{"attempts": 0}])[0]
                if (first["attempts"] or 0) > 1 and found["stages"] == {"store": 2}:
                    break
                await asyncio.sleep(0.05)
        assert first["stage"] == "store"
        assert first["error"]["stage"] == "store"
        assert first["error"]["code"]
        assert found["pending"] == found["recorded"] == 2
        assert found["waiting"] > 0, "the open chunk is in no chunk event yet"
        (chunks / uid).unlink()
        await world.stored("demo-01", found["recorded"])
        healed = await whole(world.jet, "demo-01")
        assert healed["stages"] == {"stored": healed["recorded"]}
        assert healed["chunks"][0]["error"] is None


async def test_a_first_look_at_a_long_session_reads_all_events_only_of_its_end(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: `where` of a session of a day reads every event of it; or the short way finds other places."""
    monkeypatch.setattr(chunk_places, "PACE_CHUNKS", 2)
    types: list[str] = []
    fold = chunk_places.ChunkPlaces.take

    def counted(places: ChunkPlaces, event: Frozen, *more: Any) -> None:
        types.append(type(event).__name__)
        fold(places, event, *more)

    monkeypatch.setattr(chunk_places.ChunkPlaces, "take", counted)
    async with system(server, tmp_path) as world:
        host = await world.start("demo-01")
        await host.record(150)
        await world.stored("demo-01", 25)
        session = await SessionLog(world.jet).existing("demo-01")
        async with PlacesOfSessions(world.jet).of(session) as found:
            assert found.at
            wanted = await stages_in(world.jet, "demo-01", found.at)
            assert {index: found.chunks.shown(index, ()) for index in found.chunks.places} == wanted
        assert sum(stage == "stored" for stage in wanted.values()) >= 25
        begin = next((index for index in sorted(wanted) if wanted[index] != "stored"), len(wanted))
        assert types.count("Recorded") <= len(wanted) - begin + 2, "chunks are stored side by side"


@pytest.mark.parametrize("answer", [b"[]", b'{"%d": [1]}', b'{"%d": [1, true, "", "", "x"]}'])
async def test_a_worker_that_answers_in_another_form_leaves_the_tries_unknown(
    server: NatsServer, tmp_path: Path, answer: bytes
) -> None:
    """Breaks: one wrong worker, and nobody can ask any more where a chunk is."""
    async with connected(server, tmp_path) as world, running(run_conductor, world):
        await world.answered()
        async with running(run_worker, world):
            host = await world.start("demo-01")
            uid = (await world.ask("show", "demo-01"))["uid"]
            world.data.chunks.mkdir(parents=True, exist_ok=True)
            (world.data.chunks / uid).write_text("in the way")
            await host.record(14)
            async with asyncio.timeout(PATIENCE_S):
                while (await whole(world.jet, "demo-01"))["stages"] != {"store": 2}:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        proven = await world.jet.last(subjects.CHUNKS, subjects.chunk("proven", "demo-01"))
        assert proven is not None
        raw = answer.replace(b"%d", str(proven.seq).encode())
        async with world.jet.serve(subjects.tries(subjects.partition("demo-01")), lambda: raw):
            found = await whole(world.jet, "demo-01")
        assert {(one["stage"], one["attempts"], one["busy"]) for one in found["chunks"]} == {
            ("store", None, False)
        }
