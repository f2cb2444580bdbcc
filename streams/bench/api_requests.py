"""Sends mixed requests at a fixed rate, as an actor, and tells how long each kind took.

1. The load is open: a request is sent when it is due, however many are under way. Its time counts from that
   moment, so a service that stands still is not measured less often.
2. The kinds follow each other in a fixed, shuffled order. Reads ask for sessions that are being recorded.
"""

import asyncio
import json
import math
import random
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence

from streams.bench.actors import Cue, JsonObject
from streams.bench.http_client import HttpClient

API = "/api/v1/sessions"
CREATE, PAGE = "create", "list page"
SHARES = {CREATE: 2, "show": 5, PAGE: 3, "chunks page": 4, "pipeline": 3, "statistics": 3}
"""Of 20 requests."""
PATHS = {
    "show": f"{API}/{{}}",
    PAGE: f"{API}?limit=100",
    "chunks page": f"{API}/{{}}/chunks?limit=100",
    "pipeline": f"{API}/{{}}/pipeline",
    "statistics": f"{API}/{{}}/statistics",
}
SEED = 11


async def ask(cue: Cue, spec: JsonObject) -> JsonObject:
    """Actor: the figures of each kind, in milliseconds. spec: url, token, sessions, rate, seconds, kinds.

    kinds: only these; empty: all.
    """
    kinds = _order(spec["kinds"] or list(SHARES))
    sessions: Sequence[str] = spec["sessions"]
    took_ms: dict[str, list[float]] = defaultdict(list)
    failed: dict[str, int] = defaultdict(int)
    async with HttpClient(spec["url"], spec["token"]) as client:
        await cue.ready()
        began_s = time.perf_counter()

        async def one(number: int) -> None:
            kind, due_s = kinds[number % len(kinds)], began_s + number / spec["rate"]
            if kind == CREATE:
                answer = await client.ask("POST", API, _opened(number))
            else:
                session = sessions[number % len(sessions)] if sessions else ""
                answer = await client.ask("GET", PATHS[kind].format(session))
            took_ms[kind].append((time.perf_counter() - due_s) * 1000)
            if answer.status not in (200, 201):
                failed[kind] += 1

        async with asyncio.TaskGroup() as tasks:
            for number in range(int(spec["rate"] * spec["seconds"])):
                await asyncio.sleep(began_s + number / spec["rate"] - time.perf_counter())
                tasks.create_task(one(number))
        seconds = time.perf_counter() - began_s
    found = {kind: {**of_times(times), "failed": failed[kind]} for kind, times in sorted(took_ms.items())}
    return {"seconds": seconds, "kinds": found}


def of_times(times_ms: Iterable[float]) -> dict[str, float]:
    """Count, median, 99th percentile and maximum."""
    ordered = sorted(times_ms)
    return {
        "count": len(ordered),
        "p50": ordered[len(ordered) // 2],
        "p99": ordered[math.ceil(0.99 * len(ordered)) - 1],
        "max": ordered[-1],
    }


def _order(kinds: Sequence[str]) -> list[str]:
    order = [kind for kind in kinds for _ in range(10 * SHARES[kind])]
    random.Random(SEED).shuffle(order)
    return order


def _opened(number: int) -> bytes:
    """A session as a person would open it: every member that is sealed or indexed is there."""
    return json.dumps(
        {
            "id": f"opened-{number:06}",
            "name": f"Payroll of desk {number}",
            "rdp_config": {"host": "rdp-7", "username": "alice", "password": "correct horse"},
            "storage_config": {"retention_days": 365},
            "metadata": {"owner": "alice@example.com", "project": "payroll", "tags": ["finance", "audit"]},
        }
    ).encode()
