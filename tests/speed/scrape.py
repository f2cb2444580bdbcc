"""How large the page of measurements is, and how long it takes, while many sessions run: prints JSON.

    python -m tests.speed.scrape [SESSIONS [HOSTS [SECONDS]]]

1. The system runs as `lucid up` has it. The sessions record, and each sends a fragment every ten seconds.
2. `looks_ms`: requests that ask all processes. `shared_ms`: requests within the same second, from memory.
"""

import asyncio
import json
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import httpx

from infra.jetstream import connect
from infra.keys.host_identity import HostIdentity
from schemas.config.settings import Settings
from schemas.format.fragment import PartSettings
from streams.api.processes import OLDEST_S
from streams.host.session_start import start_session
from tests.support.machine.waiting import PATIENCE_S
from tests.support.program.hostile_host import HostileHost
from tests.support.program.installation import VERB_S, Installation, running
from tests.support.program.promtool import samples

SESSIONS, HOSTS, SECONDS = 1000, 100, 40
AT_ONCE = 16
TICK_S = 10.0
OPEN_METRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


async def measure(system: Installation, sessions: int, hosts: int, seconds: int) -> dict[str, object]:
    url = json.loads((system.data / "run.json").read_bytes())["api_url"]
    looks_ms: dict[str, list[float]] = {"text": [], "open_metrics": []}
    shared_ms: list[float] = []
    turns, sizes, names = asyncio.Semaphore(AT_ONCE), dict[str, int](), list[str]()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient(timeout=VERB_S))
        jet = await connect(system.nats_url, name="lucid-scrape", timeout_s=PATIENCE_S)
        stack.push_async_callback(jet.close)

        async def begin(number: int) -> HostileHost:
            settings, host = Settings().session(), f"host-{number % hosts:04}"
            async with turns:
                identity = partial(HostIdentity, system.data / "hosts")
                grant = await start_session(jet, identity, host, f"session-{number:05}", settings)
                one = HostileHost(jet, grant)
                await one.send(one.sealer.part(PartSettings(encoder="opaque", reason="start"), one.now_us()))
            return one

        async def tick(one: HostileHost, number: int) -> None:
            await asyncio.sleep(TICK_S * number / sessions)
            while True:
                await one.send(one.sealer.tick(one.now_us()))
                await asyncio.sleep(TICK_S)

        started = await asyncio.gather(*map(begin, range(sessions)))
        ticking = [asyncio.create_task(tick(one, number)) for number, one in enumerate(started)]
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            for name, headers in (("text", {}), ("open_metrics", OPEN_METRICS)):
                await asyncio.sleep(OLDEST_S + 0.1)
                for took_ms in (looks_ms[name], shared_ms):
                    began_s = time.monotonic()
                    page = (await client.get(f"{url}/metrics", headers=headers)).text
                    took_ms.append((time.monotonic() - began_s) * 1e3)
                sizes[name] = len(page)
                if name == "text":
                    names = [one.name for one in samples(page)]
                    assert "session-0" not in page
        for task in ticking:
            task.cancel()
    return {
        "sessions": sessions,
        "hosts": hosts,
        "samples": len(names),
        "rows_of_hosts": names.count("lucid_host_heard_age_seconds"),
        "bytes": sizes,
        "looks_ms": {name: spread(took) for name, took in looks_ms.items()},
        "shared_ms": spread(shared_ms),
    }


def spread(took_ms: list[float]) -> dict[str, float]:
    ordered = sorted(took_ms)
    return {f"p{q}": round(ordered[len(ordered) * q // 100], 1) for q in (50, 95)} | {
        "most": round(ordered[-1], 1)
    }


def main(sessions: int, hosts: int, seconds: int) -> None:
    limits = {"MAX_CONCURRENT_SESSIONS": str(sessions + 10)}
    with (
        tempfile.TemporaryDirectory(prefix="lucid-scrape-") as folder,
        running(Path(folder) / "data", **limits) as system,
    ):
        print(json.dumps(asyncio.run(measure(system, sessions, hosts, seconds))))


if __name__ == "__main__":
    counts = [int(argument) for argument in sys.argv[1:]]
    main(*counts, *(SESSIONS, HOSTS, SECONDS)[len(counts) :])
