"""The process that scrubs is killed again and again in the middle of one pass."""

import asyncio
import os
import random
import time
from pathlib import Path
from typing import Any

import psutil

from infra.jetstream import Jet, connect
from schemas import subjects
from schemas.errors import LucidError
from streams.control.client import call
from tests.support.machine.waiting import PATIENCE_S
from tests.support.pipeline.scrubbed import flip, open_alarms
from tests.support.program.installation import Installation, running

SEED = int(os.environ.get("KILL_SEED", "0")) or time.time_ns() % 1_000_000
KILLS = 5
CHUNKS = 80
"""At 1 MB/s files and fragments take 42 s at least: longer than all waits for kills."""
BEFORE_KILL_S = (0.2, 6.0)
"""The state is written every five seconds: some kills strike before that, some after it."""


async def test_a_pass_that_is_killed_again_and_again_proves_each_chunk_once_and_loses_no_finding(
    tmp_path: Path,
) -> None:
    """Breaks: an installation that restarts never ends a pass, skips a file, or forgets a repair."""
    print(f"KILL_SEED={SEED}")
    dice = random.Random(SEED)
    source = tmp_path / "source"
    source.write_bytes(dice.randbytes(CHUNKS << 18))
    small = tmp_path / "small"
    small.write_bytes(dice.randbytes(4 << 18))
    with running(tmp_path / "data", CHUNK_SIZE_MB="0.25", SCRUB_MB_PER_S="1") as system:
        system.record(source, "kept", CHUNK_SIZE_MB="0.25")
        system.record(small, "lost", CHUNK_SIZE_MB="0.25")
        async with jet_of(system) as jet:
            kept, lost = [await files_of(system, jet, name) for name in ("kept", "lost")]
            good = [path.read_bytes() for path in kept]
            await jet.purge(subjects.RECORDINGS, subjects.recording_by_anyone("lost"))
            damaged = dice.sample(kept, 8)
            for path in damaged:
                flip(path, 300)
            flip(lost[1], 300)
            number = (await begun(jet))["pass"]["number"]
            for _ in range(KILLS):
                await asyncio.sleep(dice.uniform(*BEFORE_KILL_S))
                conductor_of(system).kill()
                assert (await begun(jet))["pass"]["number"] == number, "the same pass goes on"
            found = await ended(jet, number)
            whole = found["last"]
            assert (whole["sessions"], whole["chunks"]) == (2, len(kept) + len(lost))
            assert (whole["repaired"], whole["alarms"]) == (len(damaged), 1)
            places = [(one["session"], one["place"]) for one in found["findings"]]
            expected = {("kept", f"chunk {int(path.name)}") for path in damaged}
            assert set(places) == {*expected, ("lost", f"chunk {int(lost[1].name)}")}
            assert len(places) == len(set(places))
            assert open_alarms(found) == [("lost", f"chunk {int(lost[1].name)}", "chunk.digest")]
            assert [path.read_bytes() for path in kept] == good
            page = await call(jet, "audit", {"limit": 500, "action": "proof_failed"}, PATIENCE_S)
            assert [one["session"] for one in page["entries"]] == ["lost"], "neither lost nor doubled"


class jet_of:  # reads like a function
    """A connection to the system, as its operator."""

    def __init__(self, system: Installation) -> None:
        self._system = system

    async def __aenter__(self) -> Jet:
        self._jet = await connect(self._system.nats_url, name="test")
        self._jet.credential = self._system.credential
        return self._jet

    async def __aexit__(self, *_: object) -> None:
        await self._jet.close()


async def files_of(system: Installation, jet: Jet, session: str) -> list[Path]:
    shown = await call(jet, "show", {"session": session}, PATIENCE_S)
    return sorted((system.data / "chunks" / shown["uid"]).iterdir())


async def begun(jet: Jet) -> dict[str, Any]:
    """The state, once a conductor works on a pass."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                found = await call(jet, "scrub_now", {}, 5)
                if found["running"]:
                    return found
            except LucidError:
                pass
            await asyncio.sleep(0.1)


async def ended(jet: Jet, number: int) -> dict[str, Any]:
    async with asyncio.timeout(2 * PATIENCE_S):
        while True:
            found = await call(jet, "scrub", {}, PATIENCE_S)
            if found["last"] and found["last"]["number"] == number:
                return found
            await asyncio.sleep(0.2)


def conductor_of(system: Installation) -> psutil.Process:
    """The process that scrubs."""
    assert system.process is not None
    children = psutil.Process(system.process.pid).children()
    (found,) = (one for one in children if "conductor" in " ".join(one.cmdline()))
    return found
