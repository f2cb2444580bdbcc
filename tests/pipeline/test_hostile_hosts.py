"""One host does its worst; the others notice nothing of it."""

import asyncio
from pathlib import Path

import pytest
from conducted import World, system
from waiting import until

from handlers.session import Session
from infra.nats_server import NatsServer
from schemas.envelope import Codec
from schemas.errors import Misuse, NotFound
from schemas.lifecycle_events import SessionSettings
from streams.conductor import ONE_HOST
from streams.enrol import start_session
from streams.shredding import Shredder


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

    async def slow(shredder: Shredder, session: Session) -> bytes:
        if session.id.startswith("stuck"):
            stuck.add(session.id)
            await may_end.wait()
        return await shred(shredder, session)

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
