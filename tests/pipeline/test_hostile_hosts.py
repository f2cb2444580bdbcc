"""One host does its worst; the others notice nothing of it."""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from handlers.lifecycle.session import Session
from handlers.stages.context import Context
from handlers.stages.record.admit import Arrival
from infra.jetstream import Jet
from infra.nats_server.server import NatsServer
from schemas.errors import Misuse, NotFound, Unavailable
from schemas.events.chunk import Compressed
from schemas.events.commands import Create
from schemas.events.session import SessionSettings
from schemas.format.chunk_header import Codec
from schemas.format.digest import Buffer
from schemas.ports.messages import Message
from streams.bench.finished import FinishedHost
from streams.conductor.conductor import ONE_HOST
from streams.control.client import call
from streams.event_store.host_log import CREATES_OF_HOST, CREATES_WAIT, HostLog
from streams.host.session_start import start_session
from streams.pipeline import chunk_memory, recompute
from streams.pipeline.record import recording
from streams.pipeline.record.refusals import DEAD_LETTERS
from streams.pipeline.record.subject_reader import SubjectReader
from streams.retention.shredding import Shredder, Turn
from tests.support.machine.waiting import until
from tests.support.pipeline.conducted import Host, World, requested, system
from tests.support.pipeline.prepared import Prepared
from tests.support.pipeline.record_stage import TWO_CHUNKS, begin, ended, folded, known, record_stage, send

ASKED = 40
SLOW = SessionSettings(codec=Codec.BROTLI.value, level=11, chunk_bytes=1 << 18)


async def sealed(world: World, session: str, host: str) -> None:
    """Start, record, end and seal one session of one host."""
    one = await world.start(session, host)
    await one.record(2)
    await one.final()
    await world.until(session, "STOPPED")


async def test_sessions_that_cannot_be_destroyed_keep_no_other_from_its_turn(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: who makes eight destructions last stops every start, seal and destruction of all hosts."""
    may_end, stuck, shred = asyncio.Event(), set[str](), Shredder.shred

    async def slow(shredder: Shredder, session: Session, turn: Turn) -> bytes:
        if session.id.startswith("stuck"):
            async with turn():
                stuck.add(session.id)
                await may_end.wait()
        return await shred(shredder, session, turn)

    monkeypatch.setattr(Shredder, "shred", slow)
    async with system(server, tmp_path) as world:
        names = [f"stuck-{number}" for number in range(2 * ONE_HOST)]
        for name in names:
            await world.start(name, "mallory")
        destroyed = [asyncio.create_task(world.ask("destroy", name)) for name in names]
        await until(lambda: len(stuck) == ONE_HOST)
        await sealed(world, "demo-01", "host-1")
        await world.ask("destroy", "demo-01")
        await sealed(world, "demo-02", "mallory")
        may_end.set()
        await asyncio.gather(*destroyed)


async def test_a_host_may_not_ask_for_a_codec_that_costs_too_much(server: NatsServer, tmp_path: Path) -> None:
    """Breaks: brotli 11 over 16 MiB keeps a core busy for half a minute a chunk, as often as a host likes."""
    async with system(server, tmp_path, worker=False) as world:

        async def ask(session: str, codec: Codec, level: int, mib: int) -> None:
            settings = SessionSettings(codec=codec.value, level=level, chunk_bytes=mib << 20)
            await start_session(world.jet, world.here.identity, "mallory", session, settings)

        with pytest.raises(Misuse, match="brotli 11 may take 32 s") as refused:
            await ask("dear", Codec.BROTLI, 11, 16)
        assert refused.value.code == "compression.cost"
        with pytest.raises(Misuse) as unknown:
            await ask("odd", Codec.GZIP, 22, 1)
        assert unknown.value.code == "compression.level"
        with pytest.raises(NotFound):
            await world.ask("show", "dear")
        await ask("fair", Codec.BROTLI, 11, 4)


async def test_a_slow_codec_keeps_no_other_host_from_its_turn(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: who asks for a slow codec has every thread and all credit, and others look silent."""
    may_go_on, stuck, compress = threading.Event(), list[int](), recompute.compress

    def slow(run: int, plain: Buffer, context: Context) -> tuple[Compressed, Buffer]:
        if context.recorded.host == "mallory":
            stuck.append(context.recorded.index)
            may_go_on.wait()
        return compress(run, plain, context)

    monkeypatch.setattr(recompute, "compress", slow)
    async with system(server, tmp_path) as world:
        try:
            grant = await start_session(world.jet, world.here.identity, "mallory", "slow", SLOW)
            host = Host(world.jet, grant)
            await host.record(200)
            await until(lambda: stuck)
            await sealed(world, "demo-01", "host-1")
            shown = await world.ask("show", "slow")
            # what was looked at before the host had its share is folded, too
            assert shown["recorded"] <= chunk_memory.HOST_CHUNKS, "the rest of 40 waits in the stream"
            assert len(stuck) == 1
        finally:
            may_go_on.set()
        await host.final()
        shown = await world.until("slow", "STOPPED")
        assert shown["recorded"] > 30


async def test_what_is_refused_of_one_host_is_looked_at_aside(
    jet: Jet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: garbage under one session's name is looked at before the fragments of all others."""
    flooded, honest = (Prepared(name, number, TWO_CHUNKS) for number, name in enumerate(("flood", "demo"), 1))
    begun, may_go_on, look = asyncio.Event(), asyncio.Event(), SubjectReader.look

    async def slow(reader: SubjectReader, messages: Sequence[Message]) -> list[Arrival]:
        if messages and messages[0].subject == flooded.subject:
            begun.set()
            await may_go_on.wait()
        return await look(reader, messages)

    async def garbage(count: int) -> None:
        await asyncio.gather(*(jet.publish(flooded.subject, b"garbage") for _ in range(count)))

    monkeypatch.setattr(recording, "SUSPECT_SHARE", 0)
    await begin(jet, flooded, honest)
    async with record_stage(jet) as stage:
        await known(stage, flooded, honest)
        monkeypatch.setattr(SubjectReader, "look", slow)
        await garbage(DEAD_LETTERS)
        await until(lambda: stage.ingest._recordings["flood"].suspect)
        await garbage(1)
        await begun.wait()
        await garbage(1000)
        await send(jet, honest)
        assert await ended(jet, honest) == await folded(jet, honest)
        may_go_on.set()
        await send(jet, flooded)
        assert await ended(jet, flooded) == await folded(jet, flooded)


async def test_who_asks_under_the_name_of_another_host_keeps_it_from_nothing(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: requests under its name, signed by whoever, take all turns of a host: it records nothing."""
    real, false = FinishedHost("host-1"), FinishedHost("host-1")
    false.key = FinishedHost("mallory").key
    false.public = false.key.public_key().public_bytes_raw()
    may_go_on, register = asyncio.Event(), HostLog.register

    async def slow(hosts: HostLog, host: str, key: bytes, at_us: int, who: str) -> None:
        if key == false.public:
            await may_go_on.wait()
        await register(hosts, host, key, at_us, who)

    monkeypatch.setattr(HostLog, "register", slow)
    refused = ASKED - CREATES_OF_HOST - CREATES_WAIT
    async with system(server, tmp_path, worker=False) as world:
        flood = [false.create(f"false-{n}", 1).model_dump(mode="json") for n in range(ASKED)]
        asking = [asyncio.create_task(call(world.jet, "create", one)) for one in flood]
        await until(lambda: sum(task.done() for task in asking) == refused)
        made = await call(world.jet, "create", real.create("demo-01", 1).model_dump(mode="json"))
        assert made["state"] == "CREATED"
        may_go_on.set()
        told = await asyncio.gather(*asking, return_exceptions=True)
    assert sorted(getattr(one, "code", "") for one in told) == sorted(
        ["create.busy"] * refused + ["host.key"] * (ASKED - refused)
    )


async def test_a_host_that_asks_for_sessions_without_end_keeps_no_other_waiting(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: one host's requests fill all places in which requests are answered, and nobody else begins."""
    may_go_on, admit = asyncio.Event(), HostLog.admit

    async def slow(hosts: HostLog, asked: Create) -> None:
        if asked.host == "host-1":
            await may_go_on.wait()
        await admit(hosts, asked)

    monkeypatch.setattr(HostLog, "admit", slow)
    refused = ASKED - CREATES_OF_HOST - CREATES_WAIT
    async with system(server, tmp_path, worker=False) as world:
        asking = [
            asyncio.create_task(call(world.jet, "create", requested(f"s-{n}", n).model_dump(mode="json")))
            for n in range(1, ASKED + 1)
        ]
        await until(lambda: sum(task.done() for task in asking) == refused)
        await world.start("demo-01", "host-2")
        may_go_on.set()
        told = await asyncio.gather(*asking, return_exceptions=True)
    assert [one.code for one in told if isinstance(one, Unavailable)] == ["create.busy"] * refused
