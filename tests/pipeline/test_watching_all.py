"""The view of all running sessions: those in need first, with the stages of their chunks. Real worker."""

import asyncio
from pathlib import Path
from typing import Any

from infra.nats_server.server import NatsServer
from streams.cli.running_view import lines
from streams.control.client import call
from tests.support.machine.waiting import PATIENCE_S
from tests.support.pipeline.conducted import World, system


async def looked(world: World, limit: int = 20) -> dict[str, Any]:
    found = await call(world.jet, "running", {"limit": limit}, PATIENCE_S)
    order = [(not row["error"], -row["lag_us"], row["session"]) for row in found["sessions"]]
    assert order == sorted(order), "those in need first, by the numbers that are shown"
    return found


async def test_a_session_that_stands_still_is_shown_before_the_others(
    server: NatsServer, tmp_path: Path
) -> None:
    """Breaks: of a thousand sessions the one in need is on no screen."""
    async with system(server, tmp_path) as world:
        first = await looked(world)
        assert (first["count"], first["sessions"]) == (0, [])
        stuck = await world.start("z-stuck")
        chunks = world.data.chunks
        chunks.mkdir(parents=True, exist_ok=True)
        (chunks / (await world.ask("show", "z-stuck"))["uid"]).write_text("in the way")
        await stuck.record(14)
        for name in ("a-good", "b-good"):
            host = await world.start(name)
            await host.record(14)
            await world.stored(name, 2)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = await looked(world)
                if found["sessions"][0]["stages"].get("store"):
                    break
                await asyncio.sleep(0.05)
        assert [row["session"] for row in found["sessions"]] == ["z-stuck", "a-good", "b-good"]
        assert found["states"] == {"ACTIVE": 3}
        top, good, _ = found["sessions"]
        assert (top["stored"], good["stored"], good["stages"]) == (0, good["recorded"], {})
        assert top["lag_us"] > 0 == good["lag_us"]
        assert top["waiting"] > 0
        short = await looked(world, 1)
        assert (len(short["sessions"]), short["more"]) == (1, 2)
        screen = lines(short)
        assert screen[0] == "3 sessions not finished: 3 ACTIVE"
        assert screen[-1] == "  and 2 more"
        assert all(len(line) <= 80 for line in screen)
        await world.ask("error", "b-good")
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = await looked(world)
                if found["sessions"][0]["session"] == "b-good":
                    break
                await asyncio.sleep(0.05)
        assert found["errors"] >= 1
