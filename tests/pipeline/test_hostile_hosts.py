"""One host does its worst; the others notice nothing of it."""

import asyncio
from pathlib import Path

import pytest
from conducted import World, system
from waiting import until

from handlers.session import Session
from infra.nats_server import NatsServer
from streams.conductor import ONE_HOST
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
