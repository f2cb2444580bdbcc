"""A system with a scrub, and how a test asks it: passes, findings, alarms, flipped bits."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.nats_server.server import NatsServer
from streams.control.client import call
from streams.evidence import scrub, scrub_progress
from streams.roles.services import run_conductor, run_worker
from tests.support.machine.waiting import PATIENCE_S, until
from tests.support.pipeline.conducted import World, connected, running

FAST = 10_000


@asynccontextmanager
async def scrubbing(server: NatsServer, path: Path, rate: int = FAST) -> AsyncIterator[World]:
    """The streams and a data directory, with this rate; nothing runs."""
    async with connected(server, path) as world:
        yield World(world.jet, world.data, replace(world.settings, scrub_mb_per_s=rate))


@asynccontextmanager
async def system(server: NatsServer, path: Path, *, rate: int = FAST) -> AsyncIterator[World]:
    """A conductor and a worker, with this rate."""
    async with scrubbing(server, path, rate) as world, running(run_conductor, world):
        await world.answered()
        async with running(run_worker, world):
            yield world


async def asked(world: World, *, now: bool = False) -> dict[str, Any]:
    return await call(world.jet, "scrub_now" if now else "scrub", {}, PATIENCE_S)


async def one_pass(world: World) -> dict[str, Any]:
    """The state after a pass that began now."""
    number = (await asked(world))["pass"]["number"]
    await asked(world, now=True)
    found = await shown(world, lambda found: bool(found["last"]) and found["last"]["number"] > number)
    state = world.data.path / "scrub" / "state.json"
    await until(
        lambda: f'"number":{number + 1},' in state.read_text() and '"ended_us":0' not in state.read_text()
    )
    return found


async def shown(world: World, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The state once it is as wanted."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = await asked(world)
            if wanted(found):
                return found
            await asyncio.sleep(0.05)


async def sealed(world: World, session: str = "demo-01", fragments: int = 24) -> list[Path]:
    """Record a session, and return the files of its chunks."""
    host = await world.start(session)
    await host.record(fragments)
    await host.final()
    shown = await world.until(session, "STOPPED")
    return sorted((world.data.chunks / shown["uid"]).iterdir())


def flip(path: Path, at: int) -> None:
    """Flip one bit of a file."""
    raw = bytearray(path.read_bytes())
    raw[min(at, len(raw) - 1)] ^= 1
    mode = path.stat().st_mode
    path.chmod(0o600)
    path.write_bytes(raw)
    path.chmod(mode)


def written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every state is written at once, and a second process asks often for the lock."""
    monkeypatch.setattr(scrub_progress, "CHECKPOINT_S", 0.0)
    monkeypatch.setattr(scrub, "OWNER_S", 0.2)


def open_alarms(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Session, place and code of each alarm, in the order in which they are shown."""
    return [(one["session"], one["place"], one["code"]) for one in found["alarms"]]


def records(block: bytes) -> list[int]:
    """Where each record of a block of a stream begins. Source: the file store of nats-server."""
    starts, at = [], 0
    while at < len(block):
        starts.append(at)
        at += int.from_bytes(block[at : at + 4], "little") & 0x7FFFFFFF
    return starts


def flip_in_stream(store: Path, stream: str, *, length: bool = False) -> None:
    """Flip a bit in the middle record of a stopped server's stream: of its body, or of its length."""
    block = max(store.rglob(f"{stream}/msgs/*.blk"), key=lambda path: path.stat().st_size)
    starts = records(block.read_bytes())
    middle = starts[len(starts) // 2]
    after = starts[len(starts) // 2 + 1]
    flip(block, middle if length else (middle + after) // 2)
